//! Tokens to expressions, by precedence. Bounded in depth, so that neither this nor anything that walks an expression
//! can run out of stack.

mod macros;

use crate::ast::{Entry, Expr, Kind, Literal};
use crate::lexer::{self, Placed, Token};
use crate::signatures;
use crate::{DEPTH_MAX, SOURCE_BYTES_MAX};

/// What is wrong, and where.
pub(crate) type Wrong = (u32, String);

/// Words that name nothing.
const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Whether text can be the name of a variable.
pub fn is_identifier(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = text.starts_with(|c: char| plain(c) && !c.is_ascii_digit());
    starts
        && text.chars().all(plain)
        && !["true", "false", "null"].contains(&text)
        && !RESERVED.contains(&text)
}

/// Binary operators: sign, function, how tightly it binds.
const OPERATORS: &[(&str, &str, u8)] = &[
    ("<", "_<_", 1),
    ("<=", "_<=_", 1),
    (">", "_>_", 1),
    (">=", "_>=_", 1),
    ("==", "_==_", 1),
    ("!=", "_!=_", 1),
    ("in", "@in", 1),
    ("+", "_+_", 2),
    ("-", "_-_", 2),
    ("*", "_*_", 3),
    ("/", "_/_", 3),
    ("%", "_%_", 3),
];

pub(crate) fn parse(source: &str) -> Result<Expr, Wrong> {
    if source.len() > SOURCE_BYTES_MAX {
        return Err((
            0,
            format!("expression size exceeds limit: size: {}, limit {SOURCE_BYTES_MAX}", source.len()),
        ));
    }
    let mut parser = Parser { tokens: lexer::tokens(source)?, next: 0, nesting: 0 };
    let expr = parser.expr()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.unexpected("<EOF>")),
    }
}

struct Parser {
    tokens: Vec<Placed>,
    next: usize,
    nesting: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        // The last token is `End` and is never taken.
        &self.tokens[self.next].0
    }

    fn at(&self) -> u32 {
        self.tokens[self.next].1
    }

    fn take(&mut self) -> Token {
        let token = self.tokens[self.next].0.clone();
        if token != Token::End {
            self.next += 1;
        }
        token
    }

    fn sees(&self, sign: &str) -> bool {
        match self.peek() {
            Token::Sign(s) => *s == sign,
            Token::Word(word) => word == sign && sign == "in",
            _ => false,
        }
    }

    fn takes(&mut self, sign: &str) -> bool {
        let seen = self.sees(sign);
        self.next += usize::from(seen);
        seen
    }

    fn require(&mut self, sign: &str) -> Result<(), Wrong> {
        if self.takes(sign) { Ok(()) } else { Err(self.unexpected(&format!("'{sign}'"))) }
    }

    fn unexpected(&self, wanted: &str) -> Wrong {
        let shown = match self.peek() {
            Token::End => "<EOF>".to_owned(),
            Token::Sign(sign) => (*sign).to_owned(),
            Token::Word(word) | Token::Quoted(word) => word.clone(),
            Token::Literal(_) => "literal".to_owned(),
        };
        (self.at(), format!("Syntax error: mismatched input '{shown}' expecting {wanted}"))
    }

    /// An expression of what has been read, unless it is nested too deeply.
    fn node(&self, kind: Kind, at: u32) -> Result<Expr, Wrong> {
        let expr = Expr::new(kind, at);
        if usize::from(expr.depth) > DEPTH_MAX {
            return Err((at, format!("expression recursion limit exceeded: {DEPTH_MAX}")));
        }
        Ok(expr)
    }

    fn expr(&mut self) -> Result<Expr, Wrong> {
        self.nesting += 1;
        if self.nesting > DEPTH_MAX {
            return Err((self.at(), format!("expression recursion limit exceeded: {DEPTH_MAX}")));
        }
        let condition = self.terms("||")?;
        let at = self.at();
        let expr = if self.takes("?") {
            let yes = self.terms("||")?;
            self.require(":")?;
            let no = self.expr()?;
            self.node(Kind::Conditional(Box::new([condition, yes, no])), at)?
        } else {
            condition
        };
        self.nesting -= 1;
        Ok(expr)
    }

    /// `a || b || c` of `a && b && c` of operands.
    fn terms(&mut self, sign: &'static str) -> Result<Expr, Wrong> {
        let any = sign == "||";
        let mut at = self.at();
        let mut terms = Vec::new();
        loop {
            terms.push(if any { self.terms("&&")? } else { self.operation(1)? });
            if terms.len() == 1 {
                at = if self.sees(sign) { self.at() } else { at };
            }
            if !self.takes(sign) {
                break;
            }
        }
        match terms.pop() {
            Some(only) if terms.is_empty() => Ok(only),
            last => {
                terms.extend(last);
                self.node(if any { Kind::Any(terms) } else { Kind::All(terms) }, at)
            }
        }
    }

    fn operation(&mut self, binding: u8) -> Result<Expr, Wrong> {
        let mut left = self.unary()?;
        loop {
            let found = OPERATORS.iter().find(|(sign, _, tight)| *tight >= binding && self.sees(sign));
            let Some((_, function, tight)) = found else { return Ok(left) };
            let at = self.at();
            self.take();
            let right = self.operation(tight + 1)?;
            let call = Kind::Call { function: (*function).to_owned(), target: None, args: vec![left, right] };
            left = self.node(call, at)?;
        }
    }

    fn unary(&mut self) -> Result<Expr, Wrong> {
        let at = self.at();
        for (sign, function) in [("!", "!_"), ("-", "-_")] {
            let mut times = 0;
            while self.takes(sign) {
                times += 1;
            }
            if times == 0 {
                continue;
            }
            if times == 1
                && sign == "-"
                && let Token::Literal(Literal::Int(negative)) = *self.peek()
            {
                // What a lexer reads is negated already, so that the least integer has a literal.
                self.take();
                let literal = self.node(Kind::Literal(Literal::Int(negative)), at)?;
                return self.members(literal);
            }
            let operand = self.member()?;
            if times % 2 == 0 {
                return Ok(operand);
            }
            let call = Kind::Call { function: function.to_owned(), target: None, args: vec![operand] };
            return self.node(call, at);
        }
        self.member()
    }

    fn member(&mut self) -> Result<Expr, Wrong> {
        let first = self.primary()?;
        self.members(first)
    }

    fn members(&mut self, mut expr: Expr) -> Result<Expr, Wrong> {
        loop {
            let at = self.at();
            if self.takes(".") {
                let optional = self.takes("?");
                let field = match self.take() {
                    Token::Word(word) if word != "in" => word,
                    Token::Quoted(name) => name,
                    _ => {
                        self.next = self.next.saturating_sub(1);
                        return Err(self.unexpected("IDENTIFIER"));
                    }
                };
                expr = if !optional && self.sees("(") {
                    let at = self.at();
                    let args = self.arguments()?;
                    self.call(field, Some(expr), args, at)?
                } else {
                    self.node(Kind::Select { operand: Box::new(expr), field, optional }, at)?
                };
            } else if self.takes("[") {
                let optional = self.takes("?");
                let index = Box::new(self.expr()?);
                self.require("]")?;
                expr = self.node(Kind::Index { operand: Box::new(expr), index, optional }, at)?;
            } else if self.sees("{")
                && let Some(name) = dotted(&expr)
            {
                self.take();
                let fields = self.fields()?;
                expr = self.node(Kind::Object { name, fields }, at)?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn primary(&mut self) -> Result<Expr, Wrong> {
        let at = self.at();
        match self.peek().clone() {
            Token::Literal(literal) => {
                self.take();
                let literal = match literal {
                    Literal::Int(negated) => Literal::Int(
                        negated.checked_neg().ok_or((at, "Syntax error: invalid int literal".to_owned()))?,
                    ),
                    other => other,
                };
                self.node(Kind::Literal(literal), at)
            }
            Token::Word(word) => {
                let literal = match word.as_str() {
                    "true" => Some(Literal::Bool(true)),
                    "false" => Some(Literal::Bool(false)),
                    "null" => Some(Literal::Null),
                    _ => None,
                };
                self.take();
                if let Some(literal) = literal {
                    return self.node(Kind::Literal(literal), at);
                }
                if RESERVED.contains(&word.as_str()) {
                    return Err((at, format!("reserved identifier: {word}")));
                }
                if self.sees("(") {
                    let at = self.at();
                    let args = self.arguments()?;
                    return self.call(word, None, args, at);
                }
                self.node(Kind::Ident(word), at)
            }
            Token::Sign("(") => {
                self.take();
                let inner = self.expr()?;
                self.require(")")?;
                Ok(inner)
            }
            Token::Sign("[") => {
                self.take();
                let mut entries = Vec::new();
                while !self.takes("]") {
                    let optional = self.takes("?");
                    entries.push(Entry { key: (), value: self.expr()?, optional });
                    self.separator("]")?;
                }
                self.node(Kind::List(entries), at)
            }
            Token::Sign("{") => {
                self.take();
                let mut entries = Vec::new();
                while !self.takes("}") {
                    let optional = self.takes("?");
                    let key = self.expr()?;
                    self.require(":")?;
                    entries.push(Entry { key, value: self.expr()?, optional });
                    self.separator("}")?;
                }
                self.node(Kind::Map(entries), at)
            }
            Token::Sign(".") => {
                self.take();
                self.primary()
            }
            _ => Err(self.unexpected("an expression")),
        }
    }

    /// A comma, or the end that is looked at next.
    fn separator(&mut self, end: &str) -> Result<(), Wrong> {
        if self.takes(",") || self.sees(end) { Ok(()) } else { Err(self.unexpected(&format!("'{end}'"))) }
    }

    fn fields(&mut self) -> Result<Vec<Entry<String>>, Wrong> {
        let mut fields = Vec::new();
        while !self.takes("}") {
            let optional = self.takes("?");
            let key = match self.take() {
                Token::Word(word) | Token::Quoted(word) => word,
                _ => {
                    self.next = self.next.saturating_sub(1);
                    return Err(self.unexpected("IDENTIFIER"));
                }
            };
            self.require(":")?;
            fields.push(Entry { key, value: self.expr()?, optional });
            self.separator("}")?;
        }
        Ok(fields)
    }

    fn arguments(&mut self) -> Result<Vec<Expr>, Wrong> {
        self.require("(")?;
        let mut args = Vec::new();
        while !self.takes(")") {
            args.push(self.expr()?);
            if !self.sees(")") {
                self.require(",")?;
            }
        }
        Ok(args)
    }

    /// A macro, a function of a namespace, or a call.
    fn call(&self, name: String, target: Option<Expr>, args: Vec<Expr>, at: u32) -> Result<Expr, Wrong> {
        let (target, args) = match macros::expand(&name, target, args, at)? {
            macros::Expanded::Macro(kind) => return self.node(kind, at),
            macros::Expanded::Call(target, args) => (target, args),
        };
        if let Some(namespace) = target.as_ref().and_then(dotted) {
            let whole = format!("{namespace}.{name}");
            if signatures::is_function(&whole) {
                return self.node(Kind::Call { function: whole, target: None, args }, at);
            }
        }
        self.node(Kind::Call { function: name, target: target.map(Box::new), args }, at)
    }
}

/// `a.b.c` as a name.
fn dotted(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select { operand, field, optional: false } => Some(format!("{}.{field}", dotted(operand)?)),
        _ => None,
    }
}
