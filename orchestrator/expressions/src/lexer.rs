//! Text to tokens, in one pass. Knows nothing of grammar.

use crate::ast::Literal;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Literal(Literal),
    /// An identifier or a word of the language.
    Word(String),
    /// A name in backticks.
    Quoted(String),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

/// Longer ones first.
const SIGNS: &[&str] = &[
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")",
    "[", "]", "{", "}",
];

/// A token and the offset it begins at.
pub(crate) type Placed = (Token, u32);

/// All tokens, the last of which is `End`; or what is wrong, and where.
pub(crate) fn tokens(source: &str) -> Result<Vec<Placed>, (u32, String)> {
    let mut lexer = Lexer { source, at: 0 };
    let mut found = Vec::new();
    loop {
        lexer.skip_blanks();
        let at = lexer.at as u32;
        let token = lexer.token().map_err(|message| (at, format!("Syntax error: {message}")))?;
        let ended = token == Token::End;
        found.push((token, at));
        if ended {
            return Ok(found);
        }
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &str {
        let start = self.at;
        let rest = self.rest();
        self.at += rest.find(|c| !keep(c)).unwrap_or(rest.len());
        &self.source[start..self.at]
    }

    fn skip_blanks(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}'));
            if !self.rest().starts_with("//") {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn token(&mut self) -> Result<Token, String> {
        let Some(first) = self.peek() else { return Ok(Token::End) };
        if let Some(text) = self.text()? {
            return Ok(Token::Literal(text));
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let word = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            return Ok(Token::Word(word.to_owned()));
        }
        let second = self.rest().chars().nth(1);
        if first.is_ascii_digit() || first == '.' && second.is_some_and(|c| c.is_ascii_digit()) {
            return self.number().map(Token::Literal);
        }
        if first == '`' {
            self.at += 1;
            let name = self
                .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ' '))
                .to_owned();
            if name.is_empty() || !self.rest().starts_with('`') {
                return Err("token recognition error at: '`'".into());
            }
            self.at += 1;
            return Ok(Token::Quoted(name));
        }
        match SIGNS.iter().find(|sign| self.rest().starts_with(**sign)) {
            Some(sign) => {
                self.at += sign.len();
                Ok(Token::Sign(sign))
            }
            None => Err(format!("token recognition error at: '{first}'")),
        }
    }

    fn number(&mut self) -> Result<Literal, String> {
        let hex = self.rest().starts_with("0x") || self.rest().starts_with("0X");
        let start = self.at;
        if hex {
            self.at += 2;
            let digits = self.take_while(|c| c.is_ascii_hexdigit()).to_owned();
            return self.whole(&digits, 16);
        }
        self.take_while(|c| c.is_ascii_digit());
        let mut double = false;
        let digit_follows =
            |text: &str, skip: usize| text[skip.min(text.len())..].starts_with(|c: char| c.is_ascii_digit());
        if self.rest().starts_with('.') && digit_follows(self.rest(), 1) {
            double = true;
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit());
        }
        if self.rest().starts_with(['e', 'E']) {
            let signed = usize::from(self.rest()[1..].starts_with(['+', '-']));
            if digit_follows(self.rest(), 1 + signed) {
                double = true;
                self.at += 1 + signed;
                self.take_while(|c| c.is_ascii_digit());
            }
        }
        let digits = self.source[start..self.at].to_owned();
        if double {
            let value: f64 = digits.parse().map_err(|_| "invalid double literal".to_owned())?;
            return if value.is_finite() {
                Ok(Literal::Double(value))
            } else {
                Err("invalid double literal".into())
            };
        }
        self.whole(&digits, 10)
    }

    fn whole(&mut self, digits: &str, radix: u32) -> Result<Literal, String> {
        if self.rest().starts_with(['u', 'U']) {
            self.at += 1;
            let value = u64::from_str_radix(digits, radix).map_err(|_| "invalid uint literal")?;
            return Ok(Literal::Uint(value));
        }
        match u64::from_str_radix(digits, radix) {
            // One more than the greatest is only right behind a minus; the parser says so.
            Ok(value) if value <= i64::MIN.unsigned_abs() => Ok(Literal::Int(value.wrapping_neg() as i64)),
            _ => Err("invalid int literal".into()),
        }
    }

    /// A string or bytes, if one begins here.
    fn text(&mut self) -> Result<Option<Literal>, String> {
        let (mut raw, mut bytes) = (false, false);
        let mut open = self.rest();
        for _ in 0..2 {
            match open.chars().next() {
                Some('r' | 'R') if !raw => raw = true,
                Some('b' | 'B') if !bytes => bytes = true,
                _ => break,
            }
            open = &open[1..];
        }
        let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| open.starts_with(*quote));
        let Some(quote) = quote else { return Ok(None) };
        let prefix = self.rest().len() - open.len();
        self.at += prefix + quote.len();
        let mut out: Vec<u8> = Vec::new();
        loop {
            if self.rest().starts_with(quote) {
                self.at += quote.len();
                break;
            }
            let Some(c) = self.peek() else { return Err("unterminated string".into()) };
            if quote.len() == 1 && (c == '\n' || c == '\r') {
                return Err("unterminated string".into());
            }
            self.at += c.len_utf8();
            if c == '\\' && !raw {
                self.escape(bytes, &mut out)?;
            } else if c == '\\' {
                out.push(b'\\');
                // A raw string keeps what follows, a quote too.
                if let Some(next) = self.peek() {
                    self.at += next.len_utf8();
                    push(next, &mut out);
                }
            } else {
                push(c, &mut out);
            }
        }
        if bytes {
            return Ok(Some(Literal::Bytes(out)));
        }
        let text = String::from_utf8(out).map_err(|_| "invalid unicode code point".to_owned())?;
        Ok(Some(Literal::String(text)))
    }

    fn escape(&mut self, bytes: bool, out: &mut Vec<u8>) -> Result<(), String> {
        let unable = || "unable to unescape string".to_owned();
        let Some(c) = self.peek() else { return Err(unable()) };
        self.at += c.len_utf8();
        let plain = match c {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' | '\'' | '"' | '`' | '?' => Some(c as u8),
            _ => None,
        };
        if let Some(byte) = plain {
            out.push(byte);
            return Ok(());
        }
        let (digits, radix) = match c {
            'x' | 'X' => (2, 16),
            'u' if !bytes => (4, 16),
            'U' if !bytes => (8, 16),
            '0'..='3' => {
                self.at -= 1;
                (3, 8)
            }
            _ => return Err(unable()),
        };
        let text = self.rest().get(..digits).ok_or_else(unable)?;
        if !text.chars().all(|c| c.is_digit(radix)) {
            return Err(unable());
        }
        let code = u32::from_str_radix(text, radix).map_err(|_| unable())?;
        self.at += digits;
        if bytes {
            out.push(u8::try_from(code).map_err(|_| unable())?);
        } else {
            push(char::from_u32(code).ok_or_else(unable)?, out);
        }
        Ok(())
    }
}

fn push(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}
