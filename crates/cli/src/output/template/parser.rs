//! From tokens to a tree of nodes. Nesting is bounded.

use super::lexer::{Piece, Token, pieces};

const DEPTH_MAX: usize = 64;

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    If { branches: Vec<(Pipeline, Vec<Node>)>, otherwise: Vec<Node> },
    Range { pipeline: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    With { pipeline: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
}

/// `$a, $b := command | command`.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub(super) variables: Vec<String>,
    pub(super) is_declaration: bool,
    pub(super) commands: Vec<Command>,
}

/// A function with arguments, a field with arguments, or one operand.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) operands: Vec<Operand>,
}

#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub(super) base: Base,
    /// `.A.B` behind the base.
    pub(super) fields: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Function(String),
    Text(String),
    Integer(i64),
    Float(f64),
    Truth(bool),
    Nil,
    Nested(Box<Pipeline>),
}

type Parsed<T> = Result<T, String>;

pub(super) fn parse(text: &str) -> Parsed<Vec<Node>> {
    let mut parser = Blocks { pieces: pieces(text)?.into_iter(), depth: 0 };
    let (nodes, end) = parser.block()?;
    match end {
        Close::Text => Ok(nodes),
        Close::End => Err("end without if, range or with".to_owned()),
        Close::Else(_) => Err("else without if, range or with".to_owned()),
    }
}

/// What closed a block.
enum Close {
    Text,
    End,
    /// The tokens behind `else`.
    Else(Vec<Token>),
}

struct Blocks {
    pieces: std::vec::IntoIter<Piece>,
    depth: usize,
}

impl Blocks {
    fn block(&mut self) -> Parsed<(Vec<Node>, Close)> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("nested too deeply".to_owned());
        }
        let mut nodes = Vec::new();
        let end = loop {
            match self.pieces.next() {
                None => break Close::Text,
                Some(Piece::Text(text)) => nodes.push(Node::Text(text)),
                Some(Piece::Action(tokens)) => match tokens.first() {
                    Some(Token::Word(word)) if word == "end" && tokens.len() == 1 => break Close::End,
                    Some(Token::Word(word)) if word == "else" => break Close::Else(tokens[1..].to_vec()),
                    _ => nodes.push(self.action(tokens)?),
                },
            }
        };
        self.depth -= 1;
        Ok((nodes, end))
    }

    fn action(&mut self, tokens: Vec<Token>) -> Parsed<Node> {
        let keyword = match tokens.first() {
            Some(Token::Word(word)) => word.as_str(),
            _ => "",
        };
        match keyword {
            "if" => self.branches(&tokens[1..]),
            "range" => {
                let pipeline = pipeline(&tokens[1..])?;
                let (body, otherwise) = self.body("range")?;
                Ok(Node::Range { pipeline, body, otherwise })
            }
            "with" => {
                let pipeline = pipeline(&tokens[1..])?;
                let (body, otherwise) = self.body("with")?;
                Ok(Node::With { pipeline, body, otherwise })
            }
            "define" | "template" | "block" | "break" | "continue" => Err(format!("{keyword} is not supported")),
            _ => Ok(Node::Print(pipeline(&tokens)?)),
        }
    }

    fn branches(&mut self, condition: &[Token]) -> Parsed<Node> {
        let mut branches = Vec::new();
        let mut condition = pipeline(condition)?;
        loop {
            let (body, end) = self.block()?;
            branches.push((condition, body));
            match end {
                Close::Text => return Err("if without end".to_owned()),
                Close::End => return Ok(Node::If { branches, otherwise: Vec::new() }),
                Close::Else(tokens) => match tokens.first() {
                    Some(Token::Word(word)) if word == "if" => condition = pipeline(&tokens[1..])?,
                    Some(_) => return Err("unexpected words behind else".to_owned()),
                    None => {
                        let otherwise = self.last_block("if")?;
                        return Ok(Node::If { branches, otherwise });
                    }
                },
            }
        }
    }

    fn body(&mut self, keyword: &str) -> Parsed<(Vec<Node>, Vec<Node>)> {
        let (body, end) = self.block()?;
        match end {
            Close::End => Ok((body, Vec::new())),
            Close::Else(tokens) if tokens.is_empty() => Ok((body, self.last_block(keyword)?)),
            Close::Else(_) => Err("unexpected words behind else".to_owned()),
            Close::Text => Err(format!("{keyword} without end")),
        }
    }

    fn last_block(&mut self, keyword: &str) -> Parsed<Vec<Node>> {
        match self.block()? {
            (nodes, Close::End) => Ok(nodes),
            _ => Err(format!("{keyword} without end")),
        }
    }
}

fn pipeline(tokens: &[Token]) -> Parsed<Pipeline> {
    let mut reader = Tokens { tokens, at: 0, depth: 0 };
    let pipeline = reader.pipeline()?;
    match reader.peek() {
        None => Ok(pipeline),
        Some(token) => Err(format!("unexpected {token:?}")),
    }
}

struct Tokens<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

impl Tokens<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn pipeline(&mut self) -> Parsed<Pipeline> {
        let (variables, is_declaration) = self.assignment();
        let mut commands = vec![self.command()?];
        while self.peek() == Some(&Token::Pipe) {
            self.at += 1;
            commands.push(self.command()?);
        }
        Ok(Pipeline { variables, is_declaration, commands })
    }

    /// `$x :=`, `$k, $v :=`, `$x =`, or nothing.
    fn assignment(&mut self) -> (Vec<String>, bool) {
        let names: Vec<String> = match &self.tokens[self.at.min(self.tokens.len())..] {
            [Token::Variable(a), Token::Comma, Token::Variable(b), ..] => vec![a.clone(), b.clone()],
            [Token::Variable(a), ..] => vec![a.clone()],
            _ => return (Vec::new(), false),
        };
        let length = names.len() * 2 - 1;
        match self.tokens.get(self.at + length) {
            Some(sign @ (Token::Declare | Token::Assign)) => {
                self.at += length + 1;
                (names, *sign == Token::Declare)
            }
            _ => (Vec::new(), false),
        }
    }

    fn command(&mut self) -> Parsed<Command> {
        let mut operands = Vec::new();
        while self.peek().is_some_and(|token| !matches!(token, Token::Pipe | Token::Close)) {
            operands.push(self.operand()?);
        }
        if operands.is_empty() { Err("missing value".to_owned()) } else { Ok(Command { operands }) }
    }

    fn operand(&mut self) -> Parsed<Operand> {
        let mut fields = Vec::new();
        let base = match self.next() {
            Some(Token::Field { name, .. }) => {
                fields.push(name);
                Base::Dot
            }
            Some(Token::Dot) => Base::Dot,
            Some(Token::Variable(name)) => Base::Variable(name),
            Some(Token::Text(text)) => Base::Text(text),
            Some(Token::Number(text)) => number(&text)?,
            Some(Token::Word(word)) => match word.as_str() {
                "true" => Base::Truth(true),
                "false" => Base::Truth(false),
                "nil" => Base::Nil,
                _ => Base::Function(word),
            },
            Some(Token::Open) => self.nested()?,
            other => return Err(format!("unexpected {other:?}")),
        };
        while let Some(Token::Field { name, glued: true }) = self.peek() {
            fields.push(name.clone());
            self.at += 1;
        }
        Ok(Operand { base, fields })
    }

    fn nested(&mut self) -> Parsed<Base> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("nested too deeply".to_owned());
        }
        let inner = self.pipeline()?;
        if self.next() != Some(Token::Close) {
            return Err("a ( is not closed".to_owned());
        }
        self.depth -= 1;
        Ok(Base::Nested(Box::new(inner)))
    }
}

fn number(text: &str) -> Parsed<Base> {
    text.parse::<i64>()
        .map(Base::Integer)
        .or_else(|_| text.parse::<f64>().map(Base::Float))
        .map_err(|_| format!("{text:?} is not a number"))
}
