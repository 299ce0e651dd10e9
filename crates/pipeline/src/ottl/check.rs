//! Why: from a tree to a program: every path, function and constant must exist, and arguments must be what the function takes, as far as that shows.

use std::borrow::Cow;
use std::collections::HashSet;

use model::Signal;
use regex::Regex;

use super::Mistake;
use super::ast::{Argument, At, Call, Node, Path};
use super::editors::{EDITORS, Editor, editor};
use super::frame::Part;
use super::functions::{CONVERTERS, Parameter, Takes, converter};
use super::parser;
use super::paths::{Context, What, constant, constants};
use super::program::{Arg, Called, Cond, Expr, Key, PathTo, Statement};
use super::value::Value;
use crate::config::suggest;
use crate::processors::actions::compile;

/// Reads and checks a statement that stands in a context.
pub fn statement(text: &str, context: Context) -> Result<Statement, Mistake> {
    let tree = parser::statement(text)?;
    let check = Check { context };
    let found = known_editor(&tree.editor)?;
    if let Some(key) = tree.editor.keys.first() {
        return Err(Mistake::new(
            key.at,
            key.end,
            "an editor yields nothing that could have keys",
        ));
    }
    let arguments = check.arguments(&tree.editor, found.parameters)?;
    let changes = match arguments.first() {
        Some(Arg::Target(path)) => path.part,
        _ => Part::Item,
    };
    Ok(Statement {
        editor: found,
        arguments,
        changes,
        condition: tree.condition.map(|condition| check.condition(condition)).transpose()?,
    })
}

fn known_editor(call: &Call) -> Result<&'static Editor, Mistake> {
    let Call { name, at, .. } = call;
    editor(name).ok_or_else(|| {
        Mistake::new(*at, at + name.len(), format!("there is no editor `{name}`"))
            .hint(suggest(name, EDITORS.iter().map(|editor| editor.name)))
    })
}

/// Reads and checks a condition that stands in a context.
pub fn condition(text: &str, context: Context) -> Result<Cond, Mistake> {
    Check { context }.condition(parser::condition(text)?)
}

/// The context that a statement (or, if it is none, a condition) is about, told from the beginnings of its paths: the innermost that it names.
pub fn infer(text: &str, signal: Signal, is_statement: bool) -> Result<Context, Mistake> {
    let mut paths = Vec::new();
    if is_statement {
        let tree = parser::statement(text)?;
        known_editor(&tree.editor)?;
        tree.editor
            .arguments
            .iter()
            .for_each(|argument| collect(&argument.value, &mut paths));
        tree.condition
            .iter()
            .for_each(|condition| collect(condition, &mut paths));
    } else {
        collect(&parser::condition(text)?, &mut paths);
    }
    let all = Context::of(signal);
    let mut innermost = None;
    let bare = |at, end, name: &str| {
        let names: Vec<&str> = all.iter().map(|context| context.name()).collect();
        let message = format!("`{name}` does not say what it is of; paths begin with {}", or(&names));
        Mistake::new(at, end, message).hint(format!("did you mean `{}.{name}`?", names[2]))
    };
    for (at, end, first) in &paths {
        match Context::from_name(first) {
            Some(context) if all.contains(&context) => innermost = innermost.max(Some(context)),
            Some(context) => {
                let message = format!("`{}` is nothing that {signal} have", context.name());
                return Err(Mistake::new(*at, *end, message));
            }
            None => return Err(bare(*at, *end, first)),
        }
    }
    innermost.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|context| context.name()).collect();
        Mistake::new(
            0,
            text.len(),
            format!("no path says what this is about; paths begin with {}", or(&names)),
        )
    })
}

fn or(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}.`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

fn collect(node: &At<Node>, paths: &mut Vec<(usize, usize, String)>) {
    match &node.node {
        Node::Path(path) => {
            if path.segments.first().is_none_or(|first| first != "cache") {
                let first = path.segments.first().cloned().unwrap_or_default();
                // A context alone is a path of its own; nothing is called so.
                paths.push((node.at, node.at + first.len(), first));
            }
            path.keys.iter().for_each(|key| collect(key, paths));
        }
        Node::Call(call) => {
            call.arguments
                .iter()
                .for_each(|argument| collect(&argument.value, paths));
            call.keys.iter().for_each(|key| collect(key, paths));
        }
        Node::List(values) => values.iter().for_each(|value| collect(value, paths)),
        Node::Map(pairs) => pairs.iter().for_each(|(_, value)| collect(value, paths)),
        Node::Negative(inner) | Node::Not(inner) => collect(inner, paths),
        Node::Math(left, _, right) | Node::Compare(left, _, right) | Node::And(left, right) | Node::Or(left, right) => {
            collect(left, paths);
            collect(right, paths);
        }
        Node::Nil | Node::Bool(_) | Node::Int(_) | Node::Double(_) | Node::Text(_) | Node::Bytes(_) => {}
        Node::Constant(_) => {}
    }
}

struct Check {
    context: Context,
}

impl Check {
    fn condition(&self, tree: At<Node>) -> Result<Cond, Mistake> {
        let (at, end) = (tree.at, tree.end);
        Ok(match tree.node {
            Node::Bool(value) => Cond::Always(value),
            Node::Not(inner) => Cond::Not(Box::new(self.condition(*inner)?)),
            Node::And(left, right) => Cond::And(Box::new(self.condition(*left)?), Box::new(self.condition(*right)?)),
            Node::Or(left, right) => Cond::Or(Box::new(self.condition(*left)?), Box::new(self.condition(*right)?)),
            Node::Compare(left, how, right) => Cond::Compare(self.expr(*left)?, how, self.expr(*right)?),
            node @ (Node::Call(_) | Node::Path(_)) => Cond::Truth(self.expr(At { node, at, end })?),
            other => {
                let message = format!("a condition is needed here, not {}", describe(&other));
                return Err(Mistake::new(at, end, message));
            }
        })
    }

    fn expr(&self, tree: At<Node>) -> Result<Expr, Mistake> {
        let (at, end) = (tree.at, tree.end);
        Ok(match tree.node {
            Node::Nil => Expr::Constant(Value::Nil),
            Node::Bool(value) => Expr::Constant(Value::Bool(value)),
            Node::Int(number) => Expr::Constant(Value::Int(number)),
            Node::Double(number) => Expr::Constant(Value::Double(number)),
            Node::Text(text) => Expr::Constant(Value::Text(Cow::Owned(text))),
            Node::Bytes(bytes) => Expr::Constant(Value::Bytes(Cow::Owned(bytes))),
            Node::Constant(name) => match constant(&name) {
                Some(number) => Expr::Constant(Value::Int(number)),
                None if converter(&name).is_some() => {
                    let message = format!("`{name}` is a function; call it, as in `{name}(…)`");
                    return Err(Mistake::new(at, end, message));
                }
                None => {
                    let known = constants();
                    return Err(Mistake::new(at, end, format!("there is no constant `{name}`"))
                        .hint(suggest(&name, known.iter().map(String::as_str))));
                }
            },
            Node::Path(path) => Expr::Path(self.path(path, at, end)?),
            Node::Call(call) => Expr::Call(Box::new(self.call(call)?)),
            Node::List(values) => Expr::List(
                values
                    .into_iter()
                    .map(|value| self.expr(value))
                    .collect::<Result<_, _>>()?,
            ),
            Node::Map(pairs) => {
                let mut checked: Vec<(String, Expr)> = Vec::with_capacity(pairs.len());
                let mut known = HashSet::with_capacity(pairs.len());
                for (key, value) in pairs {
                    if !known.insert(key.clone()) {
                        return Err(Mistake::new(
                            value.at,
                            value.end,
                            format!("the key `{key}` is set twice"),
                        ));
                    }
                    checked.push((key, self.expr(value)?));
                }
                Expr::Map(checked)
            }
            Node::Negative(inner) => Expr::Negative(Box::new(self.expr(*inner)?)),
            Node::Math(left, operation, right) => {
                Expr::Math(Box::new(self.expr(*left)?), operation, Box::new(self.expr(*right)?))
            }
            node @ (Node::Compare(..) | Node::Not(_) | Node::And(..) | Node::Or(..)) => {
                let message = format!("a value is needed here, not {}", describe(&node));
                return Err(Mistake::new(at, end, message));
            }
        })
    }

    fn call(&self, call: Call) -> Result<Called, Mistake> {
        let name_end = call.at + call.name.len();
        let Some(found) = converter(&call.name) else {
            return Err(
                Mistake::new(call.at, name_end, format!("there is no function `{}`", call.name))
                    .hint(suggest(&call.name, CONVERTERS.iter().map(|known| known.name))),
            );
        };
        if !found.only_in.is_empty() && !found.only_in.contains(&self.context) {
            let names: Vec<&str> = found.only_in.iter().map(|context| context.name()).collect();
            let message = format!(
                "`{}` has a meaning only in the context `{}`, not in `{}`",
                call.name,
                names.join("`, `"),
                self.context.name()
            );
            return Err(Mistake::new(call.at, name_end, message));
        }
        let arguments = self.arguments(&call, found.parameters)?;
        Ok(Called {
            converter: found,
            arguments,
            keys: call
                .keys
                .into_iter()
                .map(|key| self.key(key))
                .collect::<Result<_, _>>()?,
        })
    }

    fn arguments(&self, call: &Call, parameters: &[Parameter]) -> Result<Vec<Arg>, Mistake> {
        let name = &call.name;
        let mut slots: Vec<Option<Argument>> = parameters.iter().map(|_| None).collect();
        let mut named = false;
        for (place, argument) in call.arguments.iter().enumerate() {
            let (at, end) = (argument.value.at, argument.value.end);
            let index = match &argument.name {
                None if named => {
                    return Err(Mistake::new(
                        at,
                        end,
                        "an argument without a name cannot follow one with a name",
                    ));
                }
                None => place,
                Some(wanted) => {
                    named = true;
                    let index = parameters
                        .iter()
                        .position(|parameter| same_name(parameter.name, wanted));
                    index.ok_or_else(|| {
                        Mistake::new(at, end, format!("`{name}` has no argument `{wanted}`"))
                            .hint(suggest(wanted, parameters.iter().map(|parameter| parameter.name)))
                    })?
                }
            };
            match slots.get_mut(index) {
                None => {
                    let count = parameters.len();
                    let message = format!("`{name}` takes {count} argument{}", if count == 1 { "" } else { "s" });
                    return Err(Mistake::new(at, end, message));
                }
                Some(Some(_)) => {
                    let message = format!("the argument `{}` is given twice", parameters[index].name);
                    return Err(Mistake::new(at, end, message));
                }
                Some(slot) => *slot = Some(argument.clone()),
            }
        }
        let mut arguments = Vec::with_capacity(parameters.len());
        for (parameter, slot) in parameters.iter().zip(slots) {
            match slot {
                Some(argument) => arguments.push(self.argument(name, parameter, argument.value)?),
                None if parameter.optional => arguments.push(Arg::Absent),
                None => {
                    let message = format!("the argument `{}` of `{name}` is missing", parameter.name);
                    return Err(Mistake::new(call.at, call.end, message));
                }
            }
        }
        Ok(arguments)
    }

    fn argument(&self, function: &str, parameter: &Parameter, value: At<Node>) -> Result<Arg, Mistake> {
        let (at, end) = (value.at, value.end);
        let wrong = |wanted: &str, found: &Node| {
            let message = format!(
                "the argument `{}` of `{function}` is {wanted}, not {}",
                parameter.name,
                describe(found)
            );
            Mistake::new(at, end, message)
        };
        let (wanted, fits): (&str, fn(&Node) -> bool) = match parameter.takes {
            Takes::Any => ("a value", |_| true),
            Takes::Text => ("a text", |node| {
                matches!(node, Node::Text(_) | Node::Path(_) | Node::Call(_))
            }),
            Takes::Int => ("a whole number", |node| {
                matches!(
                    node,
                    Node::Int(_)
                        | Node::Constant(_)
                        | Node::Path(_)
                        | Node::Call(_)
                        | Node::Math(..)
                        | Node::Negative(_)
                )
            }),
            Takes::List => ("a list", |node| {
                matches!(node, Node::List(_) | Node::Path(_) | Node::Call(_))
            }),
            Takes::Map => ("a map", |node| {
                matches!(node, Node::Map(_) | Node::Path(_) | Node::Call(_))
            }),
            Takes::Pattern | Takes::Glob => ("a pattern in double quotes", |node| matches!(node, Node::Text(_))),
            Takes::Function => ("the name of a function", |node| matches!(node, Node::Constant(_))),
            Takes::Target => ("a path", |node| matches!(node, Node::Path(_))),
        };
        if !fits(&value.node) {
            return Err(wrong(wanted, &value.node));
        }
        Ok(match (parameter.takes, value.node) {
            (Takes::Pattern, Node::Text(text)) => {
                Arg::Pattern(compile(&text).map_err(|message| Mistake::new(at, end, message))?)
            }
            (Takes::Glob, Node::Text(text)) => {
                Arg::Pattern(glob(&text).map_err(|message| Mistake::new(at, end, message))?)
            }
            (Takes::Function, Node::Constant(name)) => {
                let found = converter(&name).filter(|found| found.parameters.len() == 1);
                Arg::Function(found.ok_or_else(|| {
                    Mistake::new(at, end, format!("there is no function `{name}` that takes one value"))
                        .hint(suggest(&name, CONVERTERS.iter().map(|known| known.name)))
                })?)
            }
            (Takes::Target, Node::Path(path)) => {
                let name = path.segments.join(".");
                let path = self.path(path, at, end)?;
                if !path.what.can_be_set() {
                    return Err(Mistake::new(at, end, format!("`{name}` can be read, but not changed")));
                }
                Arg::Target(path)
            }
            (_, Node::List(values)) if values.iter().all(|value| matches!(value.node, Node::Text(_))) => {
                let texts = values.into_iter().filter_map(|value| match value.node {
                    Node::Text(text) => Some(text),
                    _ => None,
                });
                Arg::Texts(texts.collect())
            }
            (_, node) => Arg::Expr(self.expr(At { node, at, end })?),
        })
    }

    fn key(&self, key: At<Node>) -> Result<Key, Mistake> {
        Ok(match key.node {
            Node::Text(text) => Key::Text(text),
            Node::Int(index) => Key::Index(index),
            Node::Path(_) | Node::Call(_) | Node::Math(..) => Key::Expr(self.expr(key)?),
            other => {
                let message = format!("a key is a text or a whole number, not {}", describe(&other));
                return Err(Mistake::new(key.at, key.end, message));
            }
        })
    }

    fn path(&self, path: Path, at: usize, end: usize) -> Result<PathTo, Mistake> {
        let own = self.context;
        let first = path.segments.first().map_or("", String::as_str);
        let prefix = Context::from_name(first).filter(|_| path.segments.len() > 1);
        let (context, segments) = match prefix {
            Some(context) if context == own || own.around().contains(&context) => (context, &path.segments[1..]),
            Some(_) => {
                let message = format!("`{first}` is out of reach in the context `{}`", own.name());
                return Err(Mistake::new(at, at + first.len(), message).hint(reach(own)));
            }
            None => (own, &path.segments[..]),
        };
        let name = segments.join(".");
        let found = context.paths().iter().find(|named| named.name == name);
        let Some(found) = found else {
            if Context::from_name(&name).is_some() && prefix.is_none() {
                let message = format!("`{name}` needs a `.` and what of it is meant");
                return Err(Mistake::new(at, end, message));
            }
            let message = format!("a {} has no `{name}`", context.name());
            return Err(
                Mistake::new(at, end, message).hint(suggest(&name, context.paths().iter().map(|named| named.name)))
            );
        };
        if found.what == What::Cache && context != own {
            return Err(Mistake::new(at, end, "only the context's own `cache` is in reach"));
        }
        if let Some(key) = path.keys.first().filter(|_| !found.what.has_keys()) {
            return Err(Mistake::new(key.at, key.end, format!("`{name}` has no keys")));
        }
        let part = match (found.what, context) {
            (What::Cache, _) => Part::Cache,
            (_, Context::Resource) => Part::Resource,
            (_, Context::Scope) => Part::Scope,
            (_, context) if context == own => Part::Item,
            _ => Part::Outer,
        };
        Ok(PathTo {
            part,
            what: found.what,
            keys: path
                .keys
                .into_iter()
                .map(|key| self.key(key))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// What paths may begin with in a context.
fn reach(context: Context) -> String {
    let mut names: Vec<&str> = context.around().iter().map(|around| around.name()).collect();
    names.push(context.name());
    format!("in reach here: {}", or(&names))
}

/// `toCase` and `to_case` are the same.
fn same_name(known: &str, written: &str) -> bool {
    let plain = |name: &str| name.replace('_', "").to_ascii_lowercase();
    plain(known) == plain(written)
}

fn describe(node: &Node) -> &'static str {
    match node {
        Node::Nil => "nil",
        Node::Bool(_) => "a boolean",
        Node::Int(_) | Node::Double(_) => "a number",
        Node::Text(_) => "a text",
        Node::Bytes(_) => "bytes",
        Node::Constant(_) => "a constant",
        Node::Path(_) => "a path",
        Node::Call(_) => "a call",
        Node::List(_) => "a list",
        Node::Map(_) => "a map",
        Node::Negative(_) | Node::Math(..) => "a calculation",
        Node::Compare(..) | Node::Not(_) | Node::And(..) | Node::Or(..) => "a condition",
    }
}

/// A pattern with `*` (any text) and `?` (any character), as a regular expression for a text as a whole.
fn glob(pattern: &str) -> Result<Regex, String> {
    let mut out = "(?s)^".to_owned();
    for c in pattern.chars() {
        match c {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            c => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out.push('$');
    compile(&out)
}
