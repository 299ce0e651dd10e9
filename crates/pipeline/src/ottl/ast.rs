//! Why: a statement as it is written, before anybody asks whether what it names exists.

/// A part of a statement, and where it begins (in bytes of the text).
#[derive(Debug, Clone, PartialEq)]
pub struct At<T> {
    pub node: T,
    pub at: usize,
    pub end: usize,
}

/// `editor(arguments) where condition`
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    pub editor: Call,
    pub condition: Option<At<Node>>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Nil,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// `SPAN_KIND_SERVER`, or the name of a function as an argument.
    Constant(String),
    Path(Path),
    Call(Call),
    List(Vec<At<Node>>),
    Map(Vec<(String, At<Node>)>),
    Negative(Box<At<Node>>),
    Math(Box<At<Node>>, Operation, Box<At<Node>>),
    Compare(Box<At<Node>>, Comparison, Box<At<Node>>),
    Not(Box<At<Node>>),
    And(Box<At<Node>>, Box<At<Node>>),
    Or(Box<At<Node>>, Box<At<Node>>),
}

/// `resource.attributes["key"]`
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    pub segments: Vec<String>,
    pub keys: Vec<At<Node>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub name: String,
    pub at: usize,
    pub end: usize,
    pub arguments: Vec<Argument>,
    /// `Split(…)[0]`
    pub keys: Vec<At<Node>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Argument {
    /// `name = value`
    pub name: Option<String>,
    pub value: At<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}
