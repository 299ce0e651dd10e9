//! Which metrics get which dimensions.

use regex::Regex;

use super::event::MAX_DIMENSIONS;

/// `metric_declarations`.
#[derive(Debug, Clone)]
pub struct Declaration {
    /// Sets of labels, each sorted.
    pub(super) dimensions: Vec<Vec<String>>,
    selectors: Vec<Regex>,
    matchers: Vec<LabelMatcher>,
}

/// `label_matchers`: labels whose values, with the separator between them, are matched.
#[derive(Debug, Clone)]
pub struct LabelMatcher {
    pub names: Vec<String>,
    pub separator: String,
    pub pattern: Regex,
}

impl Declaration {
    /// A set that has more labels than CloudWatch takes dimensions is left out, as by the Collector; how many were.
    pub fn new(
        dimensions: Vec<Vec<String>>,
        selectors: Vec<Regex>,
        matchers: Vec<LabelMatcher>,
    ) -> (Declaration, usize) {
        let mut sets: Vec<Vec<String>> = Vec::new();
        let mut left_out = 0;
        for mut set in dimensions {
            set.sort_unstable();
            set.dedup();
            if set.len() > MAX_DIMENSIONS {
                left_out += 1;
            } else if !sets.contains(&set) {
                sets.push(set);
            }
        }
        let declaration = Declaration {
            dimensions: sets,
            selectors,
            matchers,
        };
        (declaration, left_out)
    }

    pub(super) fn takes_labels(&self, labels: &[(String, String)]) -> bool {
        let matches = |matcher: &LabelMatcher| {
            let value = |name: &String| {
                let found = labels.iter().find(|(known, _)| known == name);
                found.map_or("", |(_, value)| value.as_str())
            };
            let values: Vec<&str> = matcher.names.iter().map(value).collect();
            matcher.pattern.is_match(&values.join(&matcher.separator))
        };
        self.matchers.is_empty() || self.matchers.iter().any(matches)
    }

    pub(super) fn takes_name(&self, name: &str) -> bool {
        self.selectors.iter().any(|selector| selector.is_match(name))
    }
}
