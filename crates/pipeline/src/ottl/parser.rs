//! Why: from words to a statement or a condition. Recursive descent; how deep is bounded, so that no text can exhaust the stack.

use super::ast::{Argument, At, Call, Comparison, Node, Operation, Path, Statement};
use super::lexer::{Token, Word, words};
use super::{MAX_DEPTH, MAX_STATEMENT_BYTES, Mistake};

/// `editor(…) where …`
pub fn statement(text: &str) -> Result<Statement, Mistake> {
    let mut parser = Parser::new(text)?;
    let first = parser.token().clone();
    let name = match &first.word {
        Word::Lower(name) => name.clone(),
        Word::Upper(name) => {
            let message =
                format!("`{name}` does not change anything; a statement begins with an editor such as `set(…)`");
            return Err(Mistake::new(first.at, first.end, message));
        }
        other => {
            let message = format!(
                "a statement begins with an editor such as `set(…)`, not with {}",
                other.describe()
            );
            return Err(Mistake::new(first.at, first.end, message));
        }
    };
    parser.next();
    if !parser.is("(") {
        let message = format!("`{name}` is not called; an editor has its arguments in parentheses, as in `set(…)`");
        return Err(Mistake::new(first.at, first.end, message));
    }
    let editor = parser.call(name, &first)?;
    let condition = match parser.take_keyword("where") {
        true => Some(parser.expression()?),
        false => None,
    };
    parser.end()?;
    Ok(Statement { editor, condition })
}

/// What may stand behind `where`.
pub fn condition(text: &str) -> Result<At<Node>, Mistake> {
    let mut parser = Parser::new(text)?;
    let condition = parser.expression()?;
    parser.end()?;
    Ok(condition)
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: u32,
}

const KEYWORDS: [&str; 4] = ["where", "and", "or", "not"];

impl Parser {
    fn new(text: &str) -> Result<Parser, Mistake> {
        if text.len() > MAX_STATEMENT_BYTES {
            let message = format!("longer than {MAX_STATEMENT_BYTES} bytes");
            return Err(Mistake::new(0, 0, message));
        }
        Ok(Parser {
            tokens: words(text)?,
            next: 0,
            depth: 0,
        })
    }

    fn token(&self) -> &Token {
        // The last word is `End`, and nothing steps over it.
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn next(&mut self) {
        if self.next + 1 < self.tokens.len() {
            self.next += 1;
        }
    }

    fn is(&self, sign: &str) -> bool {
        matches!(&self.token().word, Word::Sign(found) if *found == sign)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        if found {
            self.next();
        }
        found
    }

    fn take_keyword(&mut self, keyword: &str) -> bool {
        let found = matches!(&self.token().word, Word::Lower(word) if word == keyword);
        if found {
            self.next();
        }
        found
    }

    fn unexpected(&self, wanted: &str) -> Mistake {
        let token = self.token();
        Mistake::new(
            token.at,
            token.end,
            format!("expected {wanted}, found {}", token.word.describe()),
        )
    }

    fn expect(&mut self, sign: &str) -> Result<usize, Mistake> {
        let end = self.token().end;
        if self.take(sign) {
            Ok(end)
        } else {
            Err(self.unexpected(&format!("`{sign}`")))
        }
    }

    fn end(&mut self) -> Result<(), Mistake> {
        match &self.token().word {
            Word::End => Ok(()),
            Word::Sign("=") => Err(self.unexpected("`==`")),
            _ => Err(self.unexpected("the end, `where`, `and`, `or` or an operator")),
        }
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Parser) -> Result<T, Mistake>) -> Result<T, Mistake> {
        if self.depth == MAX_DEPTH {
            let token = self.token();
            let message = format!("expressions nest deeper than {MAX_DEPTH} levels");
            return Err(Mistake::new(token.at, token.end, message));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn expression(&mut self) -> Result<At<Node>, Mistake> {
        self.deeper(Parser::or)
    }

    /// Chains are bounded like nesting, because the tree that they make is as deep as they are long.
    fn chain(
        &mut self,
        operand: fn(&mut Parser) -> Result<At<Node>, Mistake>,
        mut operator: impl FnMut(&mut Parser) -> Option<Box<dyn FnOnce(Box<At<Node>>, Box<At<Node>>) -> Node>>,
    ) -> Result<At<Node>, Mistake> {
        let mut left = operand(self)?;
        let mut length = 0;
        while let Some(join) = operator(self) {
            length += 1;
            if length > super::MAX_CHAIN {
                let message = format!("more than {} operators in a row", super::MAX_CHAIN);
                return Err(Mistake::new(left.at, left.end, message));
            }
            let right = operand(self)?;
            let (at, end) = (left.at, right.end);
            left = At {
                node: join(Box::new(left), Box::new(right)),
                at,
                end,
            };
        }
        Ok(left)
    }

    fn or(&mut self) -> Result<At<Node>, Mistake> {
        self.chain(Parser::and, |parser| {
            parser.take_keyword("or").then(|| Box::new(Node::Or) as _)
        })
    }

    fn and(&mut self) -> Result<At<Node>, Mistake> {
        self.chain(Parser::not, |parser| {
            parser.take_keyword("and").then(|| Box::new(Node::And) as _)
        })
    }

    fn not(&mut self) -> Result<At<Node>, Mistake> {
        let at = self.token().at;
        if !self.take_keyword("not") {
            return self.comparison();
        }
        let inner = self.deeper(Parser::not)?;
        let end = inner.end;
        Ok(At {
            node: Node::Not(Box::new(inner)),
            at,
            end,
        })
    }

    fn comparison(&mut self) -> Result<At<Node>, Mistake> {
        let left = self.sum()?;
        let how = match &self.token().word {
            Word::Sign("==") => Comparison::Equal,
            Word::Sign("!=") => Comparison::NotEqual,
            Word::Sign("<") => Comparison::Less,
            Word::Sign("<=") => Comparison::LessOrEqual,
            Word::Sign(">") => Comparison::Greater,
            Word::Sign(">=") => Comparison::GreaterOrEqual,
            _ => return Ok(left),
        };
        self.next();
        let right = self.sum()?;
        let (at, end) = (left.at, right.end);
        Ok(At {
            node: Node::Compare(Box::new(left), how, Box::new(right)),
            at,
            end,
        })
    }

    fn sum(&mut self) -> Result<At<Node>, Mistake> {
        self.chain(Parser::product, |parser| {
            let operation = match &parser.token().word {
                Word::Sign("+") => Operation::Add,
                Word::Sign("-") => Operation::Subtract,
                _ => return None,
            };
            parser.next();
            Some(Box::new(move |left, right| Node::Math(left, operation, right)))
        })
    }

    fn product(&mut self) -> Result<At<Node>, Mistake> {
        self.chain(Parser::unary, |parser| {
            let operation = match &parser.token().word {
                Word::Sign("*") => Operation::Multiply,
                Word::Sign("/") => Operation::Divide,
                _ => return None,
            };
            parser.next();
            Some(Box::new(move |left, right| Node::Math(left, operation, right)))
        })
    }

    fn unary(&mut self) -> Result<At<Node>, Mistake> {
        let at = self.token().at;
        if self.take("-") {
            let inner = self.deeper(Parser::unary)?;
            let end = inner.end;
            let node = match inner.node {
                Node::Int(number) => Node::Int(-number),
                Node::Double(number) => Node::Double(-number),
                node => Node::Negative(Box::new(At { node, ..inner })),
            };
            return Ok(At { node, at, end });
        }
        if self.take("+") {
            return self.deeper(Parser::unary);
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<At<Node>, Mistake> {
        let token = self.token().clone();
        let (at, mut end) = (token.at, token.end);
        let node = match token.word {
            Word::Text(text) => Node::Text(text),
            Word::Int(number) => Node::Int(number),
            Word::Double(number) => Node::Double(number),
            Word::Bytes(bytes) => Node::Bytes(bytes),
            Word::Lower(word) if word == "true" || word == "false" => Node::Bool(word == "true"),
            Word::Lower(word) if word == "nil" => Node::Nil,
            Word::Lower(word) if KEYWORDS.contains(&word.as_str()) => {
                return Err(self.unexpected("a value"));
            }
            Word::Lower(word) => {
                self.next();
                if self.is("(") {
                    let message = format!("`{word}` is an editor; it can only begin a statement");
                    return Err(Mistake::new(at, end, message));
                }
                return self.path(word, at, end);
            }
            Word::Upper(name) => {
                self.next();
                if !self.is("(") {
                    return Ok(At {
                        node: Node::Constant(name),
                        at,
                        end,
                    });
                }
                let token = Token {
                    word: Word::End,
                    at,
                    end,
                };
                let call = self.deeper(|parser| parser.call(name, &token))?;
                return Ok(At {
                    at,
                    end: call.end,
                    node: Node::Call(call),
                });
            }
            Word::Sign("(") => {
                self.next();
                let inner = self.expression()?;
                end = self.expect(")")?;
                return Ok(At { at, end, ..inner });
            }
            Word::Sign("[") => {
                self.next();
                let (values, end) = self.deeper(|parser| parser.list("]", Parser::expression))?;
                return Ok(At {
                    node: Node::List(values),
                    at,
                    end,
                });
            }
            Word::Sign("{") => {
                self.next();
                let (pairs, end) = self.deeper(|parser| parser.list("}", Parser::pair))?;
                return Ok(At {
                    node: Node::Map(pairs),
                    at,
                    end,
                });
            }
            _ => return Err(self.unexpected("a value")),
        };
        self.next();
        Ok(At { node, at, end })
    }

    /// Entries up to the closing sign, with commas between them; also the end of the sign.
    fn list<T>(
        &mut self,
        close: &str,
        read: fn(&mut Parser) -> Result<T, Mistake>,
    ) -> Result<(Vec<T>, usize), Mistake> {
        let mut entries = Vec::new();
        loop {
            let end = self.token().end;
            if self.take(close) {
                return Ok((entries, end));
            }
            entries.push(read(self)?);
            if !self.take(",") && !self.is(close) {
                return Err(self.unexpected(&format!("`,` or `{close}`")));
            }
        }
    }

    fn pair(&mut self) -> Result<(String, At<Node>), Mistake> {
        let Word::Text(key) = self.token().word.clone() else {
            return Err(self.unexpected("a key in double quotes"));
        };
        self.next();
        self.expect(":")?;
        Ok((key, self.expression()?))
    }

    fn path(&mut self, first: String, at: usize, mut end: usize) -> Result<At<Node>, Mistake> {
        let mut segments = vec![first];
        while self.take(".") {
            let token = self.token().clone();
            let Word::Lower(name) = token.word else {
                return Err(self.unexpected("a name after `.`"));
            };
            self.next();
            end = token.end;
            segments.push(name);
        }
        let keys = self.keys(&mut end)?;
        if self.is(".") {
            return Err(self.unexpected("nothing after a key in brackets but another key"));
        }
        Ok(At {
            node: Node::Path(Path { segments, keys }),
            at,
            end,
        })
    }

    fn keys(&mut self, end: &mut usize) -> Result<Vec<At<Node>>, Mistake> {
        let mut keys = Vec::new();
        while self.take("[") {
            if keys.len() == MAX_DEPTH as usize {
                return Err(self.unexpected("fewer keys"));
            }
            keys.push(self.expression()?);
            *end = self.expect("]")?;
        }
        Ok(keys)
    }

    /// The arguments and keys of a function whose name has been read.
    fn call(&mut self, name: String, token: &Token) -> Result<Call, Mistake> {
        self.expect("(")?;
        let (arguments, mut end) = self.list(")", Parser::argument)?;
        let keys = self.keys(&mut end)?;
        Ok(Call {
            name,
            at: token.at,
            end,
            arguments,
            keys,
        })
    }

    fn argument(&mut self) -> Result<Argument, Mistake> {
        let name = match (
            &self.token().word,
            self.tokens.get(self.next + 1).map(|next| &next.word),
        ) {
            (Word::Lower(name), Some(Word::Sign("="))) => Some(name.clone()),
            _ => None,
        };
        if name.is_some() {
            self.next();
            self.next();
        }
        Ok(Argument {
            name,
            value: self.expression()?,
        })
    }
}
