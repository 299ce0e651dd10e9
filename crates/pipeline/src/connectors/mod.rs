//! Why: one file per connector, each named as its key in the configuration. A connector ends some pipelines and begins others; it is a
//! [`Stage`](crate::stage::Stage) behind the journal.
