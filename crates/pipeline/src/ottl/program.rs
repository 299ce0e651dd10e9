//! Why: a checked statement, and how it is evaluated. Nothing here can name what does not exist; what can still go wrong are the types of what telemetry
//! holds, and that is a [`Fault`].

use std::borrow::Cow;

use model::edit::put_value;
use model::view::{AnyValue, Attributes, List};
use model::wire::put_bytes;
use regex::Regex;

use super::Fault;
use super::ast::{Comparison, Operation};
use super::editors::{Editor, Machine};
use super::frame::{Frame, Part};
use super::functions::Converter;
use super::paths::What;
use super::value::{Value, compare, elements};

#[derive(Debug)]
pub enum Expr {
    Constant(Value<'static>),
    Path(PathTo),
    Call(Box<Called>),
    List(Vec<Expr>),
    Map(Vec<(String, Expr)>),
    Negative(Box<Expr>),
    Math(Box<Expr>, Operation, Box<Expr>),
}

#[derive(Debug)]
pub struct PathTo {
    pub part: Part,
    pub what: What,
    pub keys: Vec<Key>,
}

#[derive(Debug)]
pub enum Key {
    Text(String),
    Index(i64),
    Expr(Expr),
}

#[derive(Debug)]
pub struct Called {
    pub converter: &'static Converter,
    pub arguments: Vec<Arg>,
    pub keys: Vec<Key>,
}

#[derive(Debug)]
pub enum Arg {
    Absent,
    Expr(Expr),
    /// Texts that are written in the statement.
    Texts(Vec<String>),
    Pattern(Regex),
    Function(&'static Converter),
    Target(PathTo),
}

#[derive(Debug)]
pub enum Cond {
    Always(bool),
    Not(Box<Cond>),
    And(Box<Cond>, Box<Cond>),
    Or(Box<Cond>, Box<Cond>),
    Compare(Expr, Comparison, Expr),
    Truth(Expr),
}

/// One statement, checked.
#[derive(Debug)]
pub struct Statement {
    pub editor: &'static Editor,
    pub arguments: Vec<Arg>,
    pub condition: Option<Cond>,
    /// Which part of the frame it may change.
    pub changes: Part,
}

impl Statement {
    /// Runs it where its condition holds.
    pub fn run(&self, machine: &mut Machine<'_>) -> Result<(), Fault> {
        if let Some(condition) = &self.condition
            && !condition.holds(&machine.frame)?
        {
            return Ok(());
        }
        (self.editor.run)(&self.arguments, machine)
    }
}

impl Cond {
    pub fn holds(&self, frame: &Frame<'_>) -> Result<bool, Fault> {
        Ok(match self {
            Cond::Always(value) => *value,
            Cond::Not(inner) => !inner.holds(frame)?,
            Cond::And(left, right) => left.holds(frame)? && right.holds(frame)?,
            Cond::Or(left, right) => left.holds(frame)? || right.holds(frame)?,
            Cond::Compare(left, how, right) => compare(&left.eval(frame)?, *how, &right.eval(frame)?),
            Cond::Truth(value) => match value.eval(frame)? {
                Value::Bool(value) => value,
                other => return Err(Fault::from(format!("a condition is a boolean, not {}", other.kind()))),
            },
        })
    }
}

impl Expr {
    pub fn eval<'v>(&'v self, frame: &'v Frame<'v>) -> Result<Value<'v>, Fault> {
        match self {
            Expr::Constant(value) => Ok(value.borrowed()),
            Expr::Path(path) => path.get(frame),
            Expr::Call(called) => {
                let args = Args {
                    list: &called.arguments,
                    frame,
                };
                let value = (called.converter.run)(&args)
                    .map_err(|fault| Fault::from(format!("{}: {fault}", called.converter.name)))?;
                called.keys.iter().try_fold(value, |value, key| value.at(key, frame))
            }
            Expr::List(values) => {
                let (mut stretch, mut element) = (Vec::new(), Vec::new());
                for value in values {
                    element.clear();
                    value.eval(frame)?.encode(&mut element)?;
                    put_bytes(&mut stretch, 1, &element);
                }
                Ok(Value::List(Cow::Owned(stretch)))
            }
            Expr::Map(pairs) => {
                let (mut stretch, mut value) = (Vec::new(), Vec::new());
                for (key, expr) in pairs {
                    value.clear();
                    expr.eval(frame)?.encode(&mut value)?;
                    model::edit::message::put_pair(&mut stretch, 1, key, &value);
                }
                Ok(Value::map(stretch))
            }
            Expr::Negative(value) => match value.eval(frame)? {
                Value::Int(number) => Ok(Value::Int(number.wrapping_neg())),
                Value::Double(number) => Ok(Value::Double(-number)),
                Value::Duration(nanos) => Ok(Value::Duration(nanos.wrapping_neg())),
                other => Err(Fault::from(format!("{} has no sign", other.kind()))),
            },
            Expr::Math(left, operation, right) => calculate(left.eval(frame)?, *operation, right.eval(frame)?),
        }
    }
}

fn calculate<'v>(left: Value<'v>, operation: Operation, right: Value<'v>) -> Result<Value<'v>, Fault> {
    use Operation::{Add, Divide, Multiply, Subtract};
    Ok(match (left, operation, right) {
        (Value::Int(_), Divide, Value::Int(0)) => return Err(Fault::from("a division by zero")),
        (Value::Int(left), _, Value::Int(right)) => Value::Int(match operation {
            Add => left.wrapping_add(right),
            Subtract => left.wrapping_sub(right),
            Multiply => left.wrapping_mul(right),
            Divide => left.wrapping_div(right),
        }),
        (left @ (Value::Int(_) | Value::Double(_)), _, right @ (Value::Int(_) | Value::Double(_))) => {
            let number = |value| match value {
                Value::Int(number) => number as f64,
                Value::Double(number) => number,
                _ => 0.0,
            };
            let (left, right) = (number(left), number(right));
            Value::Double(match operation {
                Add => left + right,
                Subtract => left - right,
                Multiply => left * right,
                Divide if right == 0.0 => return Err(Fault::from("a division by zero")),
                Divide => left / right,
            })
        }
        (Value::Time(left), Subtract, Value::Time(right)) => Value::Duration(left.wrapping_sub(right)),
        (Value::Time(time), Add, Value::Duration(nanos)) | (Value::Duration(nanos), Add, Value::Time(time)) => {
            Value::Time(time.wrapping_add(nanos))
        }
        (Value::Time(time), Subtract, Value::Duration(nanos)) => Value::Time(time.wrapping_sub(nanos)),
        (Value::Duration(left), Add, Value::Duration(right)) => Value::Duration(left.wrapping_add(right)),
        (Value::Duration(left), Subtract, Value::Duration(right)) => Value::Duration(left.wrapping_sub(right)),
        (left, _, right) => {
            let message = format!("{} and {} cannot be calculated with", left.kind(), right.kind());
            return Err(Fault::from(message));
        }
    })
}

impl PathTo {
    pub fn get<'v>(&'v self, frame: &'v Frame<'v>) -> Result<Value<'v>, Fault> {
        let Some((first, rest)) = self.keys.split_first() else {
            return Ok(frame.get(self.part, self.what));
        };
        let value = match (first, frame.pairs_field(self.what)) {
            (Key::Text(key), Some(number)) => {
                let pairs: Attributes<'_> = List::new(frame.bytes(self.part), number);
                pairs.get(key).map_or(Value::Nil, Value::from)
            }
            _ => frame.get(self.part, self.what).at(first, frame)?,
        };
        rest.iter().try_fold(value, |value, key| value.at(key, frame))
    }
}

/// A key as it is for this item.
#[derive(Debug)]
pub enum Resolved<'v> {
    Text(Cow<'v, str>),
    Index(i64),
}

impl Key {
    pub fn resolve<'v>(&'v self, frame: &'v Frame<'v>) -> Result<Resolved<'v>, Fault> {
        match self {
            Key::Text(key) => Ok(Resolved::Text(Cow::Borrowed(key))),
            Key::Index(index) => Ok(Resolved::Index(*index)),
            Key::Expr(expr) => match expr.eval(frame)? {
                Value::Text(key) => Ok(Resolved::Text(key)),
                Value::Int(index) => Ok(Resolved::Index(index)),
                other => Err(Fault::from(format!(
                    "a key is a text or a whole number, not {}",
                    other.kind()
                ))),
            },
        }
    }
}

impl<'v> Value<'v> {
    /// The same value, borrowing.
    pub fn borrowed(&self) -> Value<'_> {
        match self {
            Value::Time(nanos) => Value::Time(*nanos),
            Value::Duration(nanos) => Value::Duration(*nanos),
            other => other.view().map_or(Value::Nil, Value::from),
        }
    }

    /// A map of these encoded pairs in field 1.
    pub fn map(stretch: Vec<u8>) -> Value<'v> {
        Value::Map(super::value::Pairs {
            stretch: Cow::Owned(stretch),
            number: 1,
        })
    }

    /// The same value, owning.
    pub fn owned(self) -> Value<'static> {
        match self {
            Value::Nil => Value::Nil,
            Value::Bool(value) => Value::Bool(value),
            Value::Int(number) => Value::Int(number),
            Value::Double(number) => Value::Double(number),
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Value::Bytes(bytes) => Value::Bytes(Cow::Owned(bytes.into_owned())),
            Value::List(stretch) => Value::List(Cow::Owned(stretch.into_owned())),
            Value::Map(pairs) => Value::Map(super::value::Pairs {
                stretch: Cow::Owned(pairs.stretch.into_owned()),
                number: pairs.number,
            }),
            Value::Time(nanos) => Value::Time(nanos),
            Value::Duration(nanos) => Value::Duration(nanos),
        }
    }

    /// What a key leads to in it; nothing where that is missing.
    fn at(self, key: &Key, frame: &Frame<'_>) -> Result<Value<'v>, Fault> {
        let key = key.resolve(frame)?;
        match (self, key) {
            (Value::Nil, _) => Ok(Value::Nil),
            (Value::Map(pairs), Resolved::Text(key)) => Ok(match pairs.stretch {
                Cow::Borrowed(stretch) => {
                    let pairs: Attributes<'v> = List::new(stretch, pairs.number);
                    pairs.get(&key).map_or(Value::Nil, Value::from)
                }
                Cow::Owned(_) => pairs
                    .view()
                    .get(&key)
                    .map_or(Value::Nil, |value| Value::from(value).owned()),
            }),
            (Value::List(stretch), Resolved::Index(index)) => {
                let missing = || Fault::from(format!("the list has no element {index}"));
                let nth = usize::try_from(index).map_err(|_| missing())?;
                match stretch {
                    Cow::Borrowed(stretch) => elements(stretch).nth(nth).map(Value::from),
                    Cow::Owned(stretch) => elements(&stretch).nth(nth).map(|value| Value::from(value).owned()),
                }
                .ok_or_else(missing)
            }
            (other, Resolved::Text(key)) => Err(Fault::from(format!("{} has no key `{key}`", other.kind()))),
            (other, Resolved::Index(index)) => Err(Fault::from(format!("{} has no element {index}", other.kind()))),
        }
    }
}

/// The arguments of a function that is being called.
pub struct Args<'v> {
    pub list: &'v [Arg],
    pub frame: &'v Frame<'v>,
}

fn needed(what: &str, found: &Value<'_>) -> Fault {
    Fault::from(format!("{what} is needed, not {}", found.kind()))
}

impl<'v> Args<'v> {
    pub fn given(&self, index: usize) -> bool {
        !matches!(self.list.get(index), None | Some(Arg::Absent))
    }

    /// Nothing, if it is not given.
    pub fn any(&self, index: usize) -> Result<Value<'v>, Fault> {
        match self.list.get(index) {
            Some(Arg::Expr(expr)) => expr.eval(self.frame),
            Some(Arg::Target(path)) => path.get(self.frame),
            Some(Arg::Texts(texts)) => {
                let mut stretch = Vec::new();
                for text in texts {
                    let mut element = Vec::new();
                    put_value(&mut element, AnyValue::Str(text));
                    put_bytes(&mut stretch, 1, &element);
                }
                Ok(Value::List(Cow::Owned(stretch)))
            }
            _ => Ok(Value::Nil),
        }
    }

    /// A text and nothing else.
    pub fn text(&self, index: usize) -> Result<Cow<'v, str>, Fault> {
        match self.any(index)? {
            Value::Text(text) => Ok(text),
            other => Err(needed("a text", &other)),
        }
    }

    /// A text, or this if it is not given.
    pub fn text_or(&self, index: usize, default: &'static str) -> Result<Cow<'v, str>, Fault> {
        match self.given(index) {
            true => self.text(index),
            false => Ok(Cow::Borrowed(default)),
        }
    }

    /// What can be written as a text; `None` for nothing.
    pub fn like(&self, index: usize) -> Result<Option<Cow<'v, str>>, Fault> {
        Ok(self.any(index)?.into_text())
    }

    pub fn int(&self, index: usize) -> Result<i64, Fault> {
        match self.any(index)? {
            Value::Int(number) => Ok(number),
            other => Err(needed("a whole number", &other)),
        }
    }

    pub fn time(&self, index: usize) -> Result<i64, Fault> {
        match self.any(index)? {
            Value::Time(nanos) => Ok(nanos),
            other => Err(needed("a time", &other)),
        }
    }

    pub fn duration(&self, index: usize) -> Result<i64, Fault> {
        match self.any(index)? {
            Value::Duration(nanos) => Ok(nanos),
            other => Err(needed("a duration", &other)),
        }
    }

    /// The encoded elements.
    pub fn list_of(&self, index: usize) -> Result<Cow<'v, [u8]>, Fault> {
        match self.any(index)? {
            Value::List(stretch) => Ok(stretch),
            other => Err(needed("a list", &other)),
        }
    }

    pub fn map_of(&self, index: usize) -> Result<super::value::Pairs<'v>, Fault> {
        match self.any(index)? {
            Value::Map(pairs) => Ok(pairs),
            other => Err(needed("a map", &other)),
        }
    }

    /// Each element of a list, whether it is written in the statement or found in telemetry.
    pub fn each(&self, index: usize, mut visit: impl FnMut(Value<'_>) -> Result<(), Fault>) -> Result<(), Fault> {
        match self.list.get(index) {
            Some(Arg::Texts(texts)) => {
                for text in texts {
                    visit(Value::Text(Cow::Borrowed(text)))?;
                }
            }
            Some(Arg::Expr(Expr::List(values))) => {
                for value in values {
                    visit(value.eval(self.frame)?)?;
                }
            }
            _ => {
                let stretch = self.list_of(index)?;
                for value in elements(&stretch) {
                    visit(value.into())?;
                }
            }
        }
        Ok(())
    }

    pub fn pattern(&self, index: usize) -> Result<&'v Regex, Fault> {
        match self.list.get(index) {
            Some(Arg::Pattern(pattern)) => Ok(pattern),
            _ => Err(Fault::from("a pattern is needed")),
        }
    }
}
