//! What a scan may ask of a row. Evaluation lies in `select.rs`; this is only the language.

use model::record::Value;

/// Which column or columns a comparison reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    /// A name as a person writes it: the first of `attr.N`, `body.N`, `resource.N`, `scope.N` that the row has, types coalesced;
    /// before those, a column of the dataset itself that is called exactly so (`name`, `duration_ns`, `severity_number`, `body` …).
    Bare(String),
    /// One level and key (`resource.service.name`, `attr.http.route`) or one column of the dataset; types coalesced.
    Exact(String),
}

impl Field {
    /// The name as written.
    pub fn name(&self) -> &str {
        match self {
            Field::Bare(name) | Field::Exact(name) => name,
        }
    }
}

/// How a value is compared. A row that lacks the field matches nothing, `Ne` included; negate with `Not` to ask for absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Equal. Numbers compare across int and double; text that spells the stored number or boolean equals it.
    Eq,
    /// There is a value and it is not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// The text of the value contains the text given; letter case matters.
    Contains,
    /// There is a value.
    Exists,
    /// The value equals one of an array.
    In,
}

/// A condition on a row.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Filter {
    /// Every row.
    #[default]
    True,
    /// All of them.
    And(Vec<Filter>),
    /// At least one of them.
    Or(Vec<Filter>),
    /// Not this.
    Not(Box<Filter>),
    /// A field against a value.
    Compare {
        /// The field.
        field: Field,
        /// The comparison.
        op: Op,
        /// What it is compared with: an array for `In`, ignored for `Exists`. `trace_id` and `span_id` take bytes or hex text.
        value: Value,
    },
}

impl Filter {
    /// `field = value` on one exact column.
    pub fn eq(field: impl Into<String>, value: Value) -> Filter {
        Filter::Compare {
            field: Field::Exact(field.into()),
            op: Op::Eq,
            value,
        }
    }
}
