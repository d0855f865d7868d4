//! Splits a template into text and actions, and an action into tokens.

/// A piece of the template: literal text, or what stands between `{{` and `}}`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A word: keyword or function.
    Word(String),
    /// `.Name`; `glued` when nothing separates it from the token before.
    Field {
        name: String,
        glued: bool,
    },
    Dot,
    Variable(String),
    Text(String),
    /// A number as written.
    Number(String),
    Pipe,
    Open,
    Close,
    Declare,
    Assign,
    Comma,
}

pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trims_next = false;
    loop {
        let (before, after) = match rest.split_once("{{") {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        let mut literal = if trims_next { before.trim_start() } else { before };
        let Some(mut action) = after else {
            push_text(&mut pieces, literal);
            return Ok(pieces);
        };
        if let Some(trimmed) = action.strip_prefix("- ") {
            literal = literal.trim_end();
            action = trimmed;
        }
        push_text(&mut pieces, literal);
        let end = action_end(action).ok_or("an action is not closed by }}")?;
        let mut inner = &action[..end];
        rest = &action[end + 2..];
        trims_next = inner.ends_with(" -");
        if trims_next {
            inner = &inner[..inner.len() - 2];
        }
        let inner = inner.trim();
        if !(inner.starts_with("/*") && inner.ends_with("*/")) {
            pieces.push(Piece::Action(tokens(inner)?));
        }
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// The offset of the closing braces, looked for outside of quotes.
fn action_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut at = 0;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(b'"'), b'\\') => at += 1,
            (Some(q), byte) if q == byte => quote = None,
            (None, byte @ (b'"' | b'`')) => quote = Some(byte),
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut glued = false;
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() {
            rest = rest.trim_start();
            glued = false;
            continue;
        }
        let (token, length) = next_token(rest, first, glued)?;
        tokens.push(token);
        rest = &rest[length..];
        glued = true;
    }
    Ok(tokens)
}

fn next_token(rest: &str, first: char, glued: bool) -> Result<(Token, usize), String> {
    let word_length = |text: &str| text.find(|c| !is_word(c)).unwrap_or(text.len());
    let token = match first {
        '|' => (Token::Pipe, 1),
        '(' => (Token::Open, 1),
        ')' => (Token::Close, 1),
        ',' => (Token::Comma, 1),
        ':' if rest.starts_with(":=") => (Token::Declare, 2),
        '=' => (Token::Assign, 1),
        '.' => match word_length(&rest[1..]) {
            0 => (Token::Dot, 1),
            length => (Token::Field { name: rest[1..=length].to_owned(), glued }, length + 1),
        },
        '$' => {
            let length = word_length(&rest[1..]);
            (Token::Variable(rest[1..=length].to_owned()), length + 1)
        }
        '`' => {
            let end = rest[1..].find('`').ok_or("a ` is not closed")?;
            (Token::Text(rest[1..=end].to_owned()), end + 2)
        }
        '"' => quoted(rest)?,
        '-' | '0'..='9' => {
            let length = rest[1..].find(|c: char| !c.is_ascii_digit() && c != '.').map_or(rest.len(), |i| i + 1);
            (Token::Number(rest[..length].to_owned()), length)
        }
        c if is_word(c) => {
            let length = word_length(rest);
            (Token::Word(rest[..length].to_owned()), length)
        }
        c => return Err(format!("unexpected {c:?}")),
    };
    Ok(token)
}

fn quoted(rest: &str) -> Result<(Token, usize), String> {
    let mut text = String::new();
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Ok((Token::Text(text), at + 1)),
            '\\' => match characters.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, other)) => text.push(other),
                None => break,
            },
            c => text.push(c),
        }
    }
    Err("a \" is not closed".to_owned())
}
