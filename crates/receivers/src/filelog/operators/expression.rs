//! The conditions of operators (`if`, `expr`, `is_first_entry`, `is_last_entry`): what people write in them, of the language that the collector evaluates
//! (<https://expr-lang.org/docs/language-definition>). Fields, texts, numbers, lists, comparisons, `matches`, `contains`, `startsWith`, `endsWith`, `in`,
//! `and`, `or`, `not`, all attributes or all of the resource (`'level' in attributes`), and the functions `len`, `lower`, `upper` and `trim`. Anything else is refused when the file is read. What cannot be compared, a field
//! that is not there above all, is not equal, less, or matched.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::Path;

use codec::log_line::{Json, Members, Record};
use regex::Regex;

use super::place::{Place, Root, find};

/// Bytes of one expression.
const MAX_BYTES: usize = 16 << 10;
/// Levels of parentheses, so that neither reading nor evaluating overflows the stack.
const MAX_DEPTH: u32 = 64;

/// An expression that is ready to be asked.
#[derive(Debug, Clone)]
pub struct Expression(Node);

#[derive(Debug, Clone)]
enum Node {
    Literal(Literal),
    List(Vec<Node>),
    Field(Place),
    SeverityText,
    SeverityNumber,
    Not(Box<Node>),
    // Lists rather than pairs: a long chain is no deep tree.
    All(Vec<Node>),
    Any(Vec<Node>),
    Compare(Comparison, Box<Node>, Box<Node>),
    Matches(Box<Node>, Regex),
    /// The first that is not nil.
    Otherwise(Vec<Node>),
    Call(Function, Box<Node>),
}

#[derive(Debug, Clone)]
enum Literal {
    Nil,
    Bool(bool),
    Number(f64),
    Text(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Contains,
    StartsWith,
    EndsWith,
    In,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Len,
    Lower,
    Upper,
    Trim,
}

#[derive(Debug, Clone)]
enum Value<'v> {
    Nil,
    Bool(bool),
    Number(f64),
    Text(Cow<'v, str>),
    List(Vec<Value<'v>>),
    JsonList(&'v [Json<'v>]),
    Object(&'v Members<'v>),
    /// All attributes of a record, and those of the file that the receiver adds later.
    Attributes(&'v Members<'v>, Option<&'v Path>),
}

impl Expression {
    pub fn parse(text: &str) -> Result<Expression, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("the expression is longer than {MAX_BYTES} bytes"));
        }
        let mut parser = Parser {
            tokens: tokens(text)?,
            at: 0,
            depth: 0,
        };
        let node = parser.either()?;
        match parser.peek() {
            None => Ok(Expression(node)),
            Some(token) => Err(format!("{} is not expected there", token.shown())),
        }
    }

    /// Whether it is true of a record, of which the file `path` is known too.
    pub fn holds(&self, record: &Record<'_>, path: Option<&Path>) -> bool {
        matches!(eval(&self.0, record, path), Value::Bool(true))
    }
}

// ---- Evaluating ----

fn eval<'v>(node: &'v Node, record: &'v Record<'_>, path: Option<&'v Path>) -> Value<'v> {
    let truth = |node: &'v Node| matches!(eval(node, record, path), Value::Bool(true));
    match node {
        Node::Literal(Literal::Nil) => Value::Nil,
        Node::Literal(Literal::Bool(truth)) => Value::Bool(*truth),
        Node::Literal(Literal::Number(number)) => Value::Number(*number),
        Node::Literal(Literal::Text(text)) => Value::Text(text.into()),
        Node::List(items) => Value::List(items.iter().map(|item| eval(item, record, path)).collect()),
        Node::Field(place) => field(place, record, path),
        Node::SeverityText => Value::Text(record.severity_text.as_ref().into()),
        Node::SeverityNumber => Value::Number(f64::from(record.severity_number)),
        Node::Not(inner) => match eval(inner, record, path) {
            Value::Bool(truth) => Value::Bool(!truth),
            _ => Value::Nil,
        },
        Node::All(nodes) => Value::Bool(nodes.iter().all(truth)),
        Node::Any(nodes) => Value::Bool(nodes.iter().any(truth)),
        Node::Otherwise(nodes) => {
            let mut values = nodes.iter().map(|node| eval(node, record, path));
            values.find(|value| !matches!(value, Value::Nil)).unwrap_or(Value::Nil)
        }
        Node::Matches(left, pattern) => match &eval(left, record, path) {
            Value::Text(text) => Value::Bool(pattern.is_match(text)),
            _ => Value::Bool(false),
        },
        Node::Compare(how, left, right) => {
            let (left, right) = (eval(left, record, path), eval(right, record, path));
            Value::Bool(how.holds(&left, &right))
        }
        Node::Call(function, inner) => match (function, eval(inner, record, path)) {
            (Function::Len, Value::Text(text)) => Value::Number(text.chars().count() as f64),
            (Function::Len, Value::List(items)) => Value::Number(items.len() as f64),
            (Function::Len, Value::JsonList(items)) => Value::Number(items.len() as f64),
            // What the receiver adds later is not counted.
            (Function::Len, Value::Object(members) | Value::Attributes(members, _)) => {
                Value::Number(members.len() as f64)
            }
            (Function::Lower, Value::Text(text)) => Value::Text(text.to_lowercase().into()),
            (Function::Upper, Value::Text(text)) => Value::Text(text.to_uppercase().into()),
            (Function::Trim, Value::Text(text)) => Value::Text(text.trim().to_owned().into()),
            _ => Value::Nil,
        },
    }
}

fn field<'v>(place: &'v Place, record: &'v Record<'_>, path: Option<&'v Path>) -> Value<'v> {
    match (place.members(record), place.root) {
        (Some(members), Root::Attributes) => return Value::Attributes(members, path),
        (Some(members), _) => return Value::Object(members),
        (None, _) => {}
    }
    if let Some(value) = place.get(record) {
        return value_of(value);
    }
    match (place.root, &place.keys[..]) {
        (Root::Attributes, [key]) => of_file(key, path).map_or(Value::Nil, Value::Text),
        _ => Value::Nil,
    }
}

/// What the receiver adds after the operators can be asked for before.
fn of_file<'v>(key: &str, path: Option<&'v Path>) -> Option<Cow<'v, str>> {
    let name = match key {
        "log.file.path" => path.map(Path::as_os_str),
        "log.file.name" => path.and_then(Path::file_name),
        _ => None,
    };
    name.map(OsStr::to_string_lossy)
}

fn value_of<'v>(value: &'v Json<'_>) -> Value<'v> {
    match value {
        Json::Null => Value::Nil,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Int(number) => Value::Number(*number as f64),
        Json::Double(number) => Value::Number(*number),
        Json::Text(text) => Value::Text(text.as_ref().into()),
        Json::List(items) => Value::JsonList(items),
        Json::Object(members) => Value::Object(members),
    }
}

impl Comparison {
    fn holds(self, left: &Value<'_>, right: &Value<'_>) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let order = || match (left, right) {
            (Value::Number(left), Value::Number(right)) => left.partial_cmp(right),
            (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
            _ => None,
        };
        let texts = |holds: fn(&str, &str) -> bool| match (left, right) {
            (Value::Text(left), Value::Text(right)) => holds(left, right),
            _ => false,
        };
        match self {
            Comparison::Equal => are_equal(left, right),
            Comparison::NotEqual => !are_equal(left, right),
            Comparison::Less => order() == Some(Less),
            Comparison::LessOrEqual => matches!(order(), Some(Less | Equal)),
            Comparison::Greater => order() == Some(Greater),
            Comparison::GreaterOrEqual => matches!(order(), Some(Greater | Equal)),
            Comparison::Contains => texts(|left, right| left.contains(right)),
            Comparison::StartsWith => texts(|left, right| left.starts_with(right)),
            Comparison::EndsWith => texts(|left, right| left.ends_with(right)),
            Comparison::In => match (left, right) {
                (_, Value::List(items)) => items.iter().any(|item| are_equal(left, item)),
                (_, Value::JsonList(items)) => items.iter().any(|item| are_equal(left, &value_of(item))),
                (Value::Text(key), Value::Object(members)) => find(members, key).is_some(),
                (Value::Text(key), Value::Attributes(members, path)) => {
                    find(members, key).is_some() || of_file(key, *path).is_some()
                }
                _ => false,
            },
        }
    }
}

fn are_equal(left: &Value<'_>, right: &Value<'_>) -> bool {
    match (left, right) {
        (Value::Nil, Value::Nil) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Number(left), Value::Number(right)) => left == right,
        (Value::Text(left), Value::Text(right)) => left == right,
        (Value::JsonList(left), Value::JsonList(right)) => left == right,
        (Value::Object(left) | Value::Attributes(left, _), Value::Object(right) | Value::Attributes(right, _)) => {
            left == right
        }
        _ => false,
    }
}

// ---- Reading ----

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Text(String),
    Number(f64),
    Word(String),
    Sign(&'static str),
}

impl Token {
    fn shown(&self) -> String {
        match self {
            Token::Text(text) => format!("the text `{text}`"),
            Token::Number(number) => format!("`{number}`"),
            Token::Word(word) => format!("`{word}`"),
            Token::Sign(sign) => format!("`{sign}`"),
        }
    }
}

/// Signs, the longer before what they begin with.
const SIGNS: [&str; 21] = [
    "&&", "||", "==", "!=", "<=", ">=", "??", "?.", "<", ">", "!", "(", ")", "[", "]", ",", ".", "-", "+", "$", "?",
];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let (mut tokens, mut rest) = (Vec::new(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        if matches!(first, '"' | '\'' | '`') {
            let (text, after) = quoted(&rest[1..], first)?;
            tokens.push(Token::Text(text));
            rest = after;
        } else if first.is_ascii_digit() {
            let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_';
            let (number, after) = rest.split_at(rest.find(is_end).unwrap_or(rest.len()));
            let value = number.replace('_', "").parse();
            tokens.push(Token::Number(value.map_err(|_| format!("`{number}` is not a number"))?));
            rest = after;
        } else if first.is_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
            tokens.push(Token::Word(word.to_owned()));
            rest = after;
        } else {
            let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
            let sign = sign.ok_or_else(|| format!("`{first}` means nothing in an expression here"))?;
            tokens.push(Token::Sign(sign));
            rest = &rest[sign.len()..];
        }
        rest = rest.trim_start();
    }
    Ok(tokens)
}

/// A text up to its quote, and what follows. Between backquotes nothing is escaped.
fn quoted(rest: &str, quote: char) -> Result<(String, &str), String> {
    let mut text = String::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return Ok((text, &rest[at + 1..])),
            '\\' if quote != '`' => match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, c @ ('\\' | '"' | '\'' | '`'))) => text.push(c),
                Some((_, other)) => {
                    return Err(format!(
                        "`\\{other}` is not an escape of a text; in a pattern between quotes write `\\\\{other}`"
                    ));
                }
                None => break,
            },
            c => text.push(c),
        }
    }
    Err(format!("a text that begins with {quote} does not end"))
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: u32,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Result<Token, String> {
        let token = self.peek().cloned().ok_or("the expression ends too early")?;
        self.at += 1;
        Ok(token)
    }

    fn takes(&mut self, sign: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Token::Sign(found)) if *found == sign);
        self.at += usize::from(is_it);
        is_it
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Token::Word(found)) if found == word);
        self.at += usize::from(is_it);
        is_it
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        match self.takes(sign) {
            true => Ok(()),
            false => match self.peek() {
                Some(token) => Err(format!("`{sign}` is missing before {}", token.shown())),
                None => Err(format!("`{sign}` is missing at the end")),
            },
        }
    }

    /// `a or b`, the loosest.
    fn either(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("the expression nests more than {MAX_DEPTH} levels"));
        }
        let mut nodes = vec![self.both()?];
        while self.takes("||") || self.takes_word("or") {
            nodes.push(self.both()?);
        }
        self.depth -= 1;
        Ok(one_or(nodes, Node::Any))
    }

    fn both(&mut self) -> Result<Node, String> {
        let mut nodes = vec![self.negated()?];
        while self.takes("&&") || self.takes_word("and") {
            nodes.push(self.negated()?);
        }
        Ok(one_or(nodes, Node::All))
    }

    fn negated(&mut self) -> Result<Node, String> {
        let mut negations = 0;
        while self.takes("!") || self.takes_word("not") {
            negations += 1;
        }
        let node = self.compared()?;
        Ok(match (negations, negations % 2) {
            (0, _) => node,
            (_, 1) => Node::Not(node.into()),
            // Of a truth that is the truth, and of anything else nothing.
            _ => Node::Not(Node::Not(node.into()).into()),
        })
    }

    fn compared(&mut self) -> Result<Node, String> {
        let left = self.otherwise()?;
        let is_negated = matches!(
            (self.peek(), self.tokens.get(self.at + 1)),
            (Some(Token::Word(not)), Some(Token::Word(_))) if not == "not"
        );
        self.at += usize::from(is_negated);
        let how = match self.peek() {
            Some(Token::Sign("==")) => Comparison::Equal,
            Some(Token::Sign("!=")) => Comparison::NotEqual,
            Some(Token::Sign("<")) => Comparison::Less,
            Some(Token::Sign("<=")) => Comparison::LessOrEqual,
            Some(Token::Sign(">")) => Comparison::Greater,
            Some(Token::Sign(">=")) => Comparison::GreaterOrEqual,
            Some(Token::Word(word)) => match word.as_str() {
                "contains" => Comparison::Contains,
                "startsWith" => Comparison::StartsWith,
                "endsWith" => Comparison::EndsWith,
                "in" => Comparison::In,
                "matches" => {
                    self.at += 1;
                    let Token::Text(pattern) = self.next()? else {
                        return Err("`matches` needs a pattern in quotes behind it".to_owned());
                    };
                    let node = Node::Matches(left.into(), pipeline::processors::actions::compile(&pattern)?);
                    return Ok(if is_negated { Node::Not(node.into()) } else { node });
                }
                _ => return Ok(left),
            },
            _ => return Ok(left),
        };
        self.at += 1;
        let node = Node::Compare(how, left.into(), self.otherwise()?.into());
        Ok(if is_negated { Node::Not(node.into()) } else { node })
    }

    fn otherwise(&mut self) -> Result<Node, String> {
        let mut nodes = vec![self.single()?];
        while self.takes("??") {
            nodes.push(self.single()?);
        }
        Ok(one_or(nodes, Node::Otherwise))
    }

    fn single(&mut self) -> Result<Node, String> {
        // `$body` is how older files write `body`.
        let _ = self.takes("$");
        match self.next()? {
            Token::Text(text) => Ok(Node::Literal(Literal::Text(text))),
            Token::Number(number) => Ok(Node::Literal(Literal::Number(number))),
            Token::Sign("-") => match self.next()? {
                Token::Number(number) => Ok(Node::Literal(Literal::Number(-number))),
                token => Err(format!("`-` before {} is not possible here", token.shown())),
            },
            Token::Sign("(") => {
                let node = self.either()?;
                self.expect(")")?;
                Ok(node)
            }
            Token::Sign("[") => {
                let mut items = Vec::new();
                while !self.takes("]") {
                    if !items.is_empty() {
                        self.expect(",")?;
                    }
                    items.push(self.either()?);
                }
                Ok(Node::List(items))
            }
            Token::Word(word) => self.word(word),
            token => Err(format!("{} is not expected there", token.shown())),
        }
    }

    fn word(&mut self, word: String) -> Result<Node, String> {
        let root = match word.as_str() {
            "true" => return Ok(Node::Literal(Literal::Bool(true))),
            "false" => return Ok(Node::Literal(Literal::Bool(false))),
            "nil" => return Ok(Node::Literal(Literal::Nil)),
            "severity_text" => return Ok(Node::SeverityText),
            "severity_number" => return Ok(Node::SeverityNumber),
            "body" => Root::Body,
            "attributes" => Root::Attributes,
            "resource" => Root::Resource,
            _ => {
                let function = match word.as_str() {
                    "len" => Function::Len,
                    "lower" => Function::Lower,
                    "upper" => Function::Upper,
                    "trim" => Function::Trim,
                    _ => {
                        return Err(format!(
                            "`{word}` is not known in an expression; known are body, attributes, resource, severity_text, severity_number, len, lower, upper and trim"
                        ));
                    }
                };
                self.expect("(")?;
                let inner = self.either()?;
                self.expect(")")?;
                return Ok(Node::Call(function, inner.into()));
            }
        };
        let mut keys = Vec::new();
        loop {
            if self.takes(".") || self.takes("?.") {
                match self.next()? {
                    Token::Word(key) => keys.push(key),
                    token => return Err(format!("{} is not the name of a field", token.shown())),
                }
            } else if self.takes("[") {
                match self.next()? {
                    Token::Text(key) => keys.push(key),
                    token => {
                        return Err(format!(
                            "{} is not the name of a field; write it in quotes",
                            token.shown()
                        ));
                    }
                }
                self.expect("]")?;
            } else {
                return Ok(Node::Field(Place { root, keys }));
            }
        }
    }
}

fn one_or(mut nodes: Vec<Node>, several: fn(Vec<Node>) -> Node) -> Node {
    match (nodes.len(), nodes.pop()) {
        (1, Some(node)) => node,
        (_, last) => {
            nodes.extend(last);
            several(nodes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str, expect: bool) {
        let mut record = Record::plain("at Main.java:7");
        record.attributes =
            Json::object(r#"{"logtag":"P","n":7,"a.b":"x","o":{"k":"Deep"},"list":["a","b"],"yes":true}"#).unwrap();
        record.resource = Json::object(r#"{"service.name":"shop"}"#).unwrap();
        record.severity_text = "WARN".into();
        record.severity_number = 13;
        let parsed = Expression::parse(expression).unwrap_or_else(|problem| panic!("{expression}: {problem}"));
        let path = Path::new("/var/log/app.log");
        assert_eq!(parsed.holds(&record, Some(path)), expect, "{expression}");
    }

    #[test]
    fn what_people_write() {
        for expression in [
            r#"body matches "^at \\w+""#,
            r"body matches `^at \w+`",
            "attributes.logtag == 'P'",
            "attributes[\"logtag\"] != \"F\" && $body contains 'Main'",
            "attributes['a.b'] == \"x\" and attributes.o.k startsWith 'De'",
            "attributes.n >= 7 and attributes.n < 7.5 and -1 < attributes.n",
            "attributes.logtag in ['P', 'F'] and 'a' in attributes.list and 'k' in attributes.o",
            "attributes.none == nil and attributes?.none?.deeper == nil",
            "(attributes.none ?? 'z') == 'z'",
            "not (body startsWith ' ') and !(body endsWith 'x')",
            "body not matches '^ ' and attributes.logtag not in ['F']",
            "not not attributes.yes and !!attributes.yes and not not not (1 == 2)",
            "len(body) == 14 and lower(attributes.o.k) == 'deep' and upper('a') == 'A' and trim(' a ') == 'a' and len(attributes.list) == 2",
            "severity_text == 'WARN' and severity_number > 9",
            "attributes[\"log.file.path\"] startsWith '/var' && attributes[\"log.file.name\"] == 'app.log'",
            "1 == 2 and 1 == 1 or 1 == 1",
            "'n' in attributes and not ('none' in attributes) and 'none' not in attributes and 'service.name' in resource",
            "'log.file.path' in attributes and len(attributes) == 6 and len(resource) == 1 and attributes != nil",
        ] {
            check(expression, true);
        }
        for expression in [
            "body",
            "attributes.none matches '.'",
            "attributes.n == '7'",
            "attributes.none < 1",
            "not attributes.n",
            "'n' in resource",
            "attributes == nil",
        ] {
            check(expression, false);
        }
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for (expression, expect) in [
            ("", "ends too early"),
            ("body ==", "ends too early"),
            ("bdy == 'x'", "`bdy` is not known"),
            ("body = 'x'", "`=` means nothing"),
            ("body matches attributes.x", "needs a pattern in quotes"),
            ("body matches '('", "("),
            ("body == 'x", "does not end"),
            ("body matches \"\\d\"", "write `\\\\d`"),
            ("(body == 'x'", "`)` is missing at the end"),
            ("body == 'x' body", "`body` is not expected"),
            ("attributes[1] == 2", "in quotes"),
            ("env('HOME') == 'x'", "`env` is not known"),
        ] {
            let said = Expression::parse(expression).err().unwrap_or_default();
            assert!(said.contains(expect), "{expression}: {said}");
        }
        let deep = format!("{}1{}", "(".repeat(1000), ")".repeat(1000));
        assert!(Expression::parse(&deep).unwrap_err().contains("nests"));
    }
}
