//! Words of the filter language.

use super::FilterError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Field(String),
    Dot,
    Comma,
}

pub(super) struct Scanner<'a> {
    input: &'a str,
    /// Byte in `input` of what comes next.
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) const fn new(input: &'a str) -> Self {
        Self { input, at: 0 }
    }

    pub(super) fn error(&self, problem: &'static str) -> FilterError {
        FilterError { input: self.input.to_owned(), position: self.at, problem }
    }

    fn rest(&self) -> &'a str {
        self.input.get(self.at..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        self.at = self.input.len() - self.rest().trim_start().len();
    }

    fn take_while(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    /// The next word; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Token>, FilterError> {
        self.skip_space();
        let Some(first) = self.rest().chars().next() else { return Ok(None) };
        match first {
            '.' | ',' => {
                self.at += 1;
                Ok(Some(if first == '.' { Token::Dot } else { Token::Comma }))
            }
            '"' => self.quoted('"').map(|text| Some(Token::Field(text))),
            _ => match self.take_while(|c| c == '_' || c.is_ascii_alphanumeric()) {
                "" => Err(self.error("this character has no meaning here")),
                name => Ok(Some(Token::Field(name.to_owned()))),
            },
        }
    }

    pub(super) fn take_if(&mut self, token: &Token) -> Result<bool, FilterError> {
        let before = self.at;
        self.skip_space();
        if matches!(self.rest().chars().next(), Some('.' | ',')) && self.next()?.as_ref() == Some(token) {
            return Ok(true);
        }
        self.at = before;
        Ok(false)
    }

    /// `None` when the selector ends here.
    pub(super) fn operator(&mut self) -> Result<Option<&'static str>, FilterError> {
        self.skip_space();
        if matches!(self.rest().chars().next(), None | Some(',')) {
            return Ok(None);
        }
        let start = self.at;
        match self.take_while(|c| matches!(c, '=' | '!' | '~')) {
            "==" => Ok(Some("==")),
            "!=" => Ok(Some("!=")),
            "~=" => Ok(Some("~=")),
            _ => {
                self.at = start;
                Err(self.error("an operator is expected: ==, != or ~="))
            }
        }
    }

    pub(super) fn value(&mut self, takes_all_quotes: bool) -> Result<String, FilterError> {
        self.skip_space();
        match self.rest().chars().next() {
            None => Err(self.error("a value is expected")),
            Some('"') => self.quoted('"'),
            Some(quote @ ('/' | '|')) if takes_all_quotes => self.quoted(quote),
            Some('/' | '|') => Err(self.error("only double quotes are taken here")),
            Some(_) => match self.take_while(|c| c != ',' && !c.is_whitespace() && !c.is_control()) {
                "" => Err(self.error("a value is expected")),
                value => Ok(value.to_owned()),
            },
        }
    }

    /// A literal with Go's escapes; in a regular expression between `/` or `|`, `\/` and `\|` stand for the quote.
    fn quoted(&mut self, quote: char) -> Result<String, FilterError> {
        let mut text = String::new();
        let mut characters = self.rest().char_indices().skip(1);
        while let Some((offset, character)) = characters.next() {
            match character {
                '\n' => break,
                c if c == quote => {
                    self.at += offset + c.len_utf8();
                    return Ok(text);
                }
                '\\' => {
                    let escaped = characters.next().map(|(_, c)| c);
                    let plain = escaped.and_then(|c| match c {
                        'x' => hexadecimal(&mut characters, 2),
                        'u' => hexadecimal(&mut characters, 4),
                        'U' => hexadecimal(&mut characters, 8),
                        other => simple_escape(other, quote),
                    });
                    text.push(plain.ok_or_else(|| self.error("the quoted text has an escape that does not exist"))?);
                }
                other => text.push(other),
            }
        }
        Err(self.error("the quoted text does not end"))
    }
}

fn simple_escape(character: char, quote: char) -> Option<char> {
    Some(match character {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '\\' => '\\',
        c if c == quote => c,
        _ => return None,
    })
}

fn hexadecimal(characters: &mut impl Iterator<Item = (usize, char)>, digits: usize) -> Option<char> {
    let text: String = characters.take(digits).map(|(_, c)| c).collect();
    (text.len() == digits).then(|| u32::from_str_radix(&text, 16).ok()).flatten().and_then(char::from_u32)
}
