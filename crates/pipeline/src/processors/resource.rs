//! Why: labels that every signal must carry (environment, project) are put on at the collector, where they cannot be forgotten. Works on the encoded
//! bytes: the resource's attributes are spliced, spans and records are copied untouched.
//!
//! ```yaml
//! processors:
//!   resource:
//!     attributes:
//!       - { key: deployment.environment, value: "${ENVIRONMENT}", action: upsert }
//!       - { key: service.instance.id, from_attribute: host.name, action: insert }
//!       - { key: internal.debug, action: delete }
//! ```

use std::sync::Arc;

use model::Batch;
use model::edit::{Level, edit_attributes};
use serde::Deserialize;

use super::Step;
use super::actions::{Action, Actions};
use crate::ack::Outcome;
use crate::component::Processor;
use crate::config::{Problems, Section};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What to do, in this order.
    pub attributes: Vec<Action>,
}

pub fn parse(section: &Section<'_>) -> Result<Step, Problems> {
    let config: Config = section.parse()?;
    let actions = Actions::new(section, "attributes", config.attributes)?;
    Ok(Step::InRequest(Arc::new(Resource { actions })))
}

struct Resource {
    actions: Actions,
}

impl Processor for Resource {
    fn metadata_keys(&self) -> Vec<Arc<str>> {
        self.actions.metadata_keys()
    }

    fn process(&self, batch: Batch) -> Result<Batch, Outcome> {
        Ok(edit_attributes(&batch, Level::Resource, |owner, changes| {
            self.actions.apply(owner.attributes, &batch.meta, changes);
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{attributes_of, processor, spans, with_resource};

    fn check(before: &[(&str, &str)], actions: &str, after: &[(&str, &str)]) {
        let batch = with_resource(&spans(0..2), before);
        let edited = processor(parse, &format!("{{ attributes: [{actions}] }}"))
            .process(batch)
            .expect("never refuses");
        let request = crate::testing::traces(&edited);
        let resource = request.resource_spans[0].resource.as_ref();
        let got = attributes_of(resource.map_or(&[][..], |resource| &resource.attributes));
        let got: Vec<(&str, &str)> = got.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(got, after);
        assert_eq!(crate::testing::ids(&edited), [0, 1], "spans are untouched");
    }

    #[test]
    fn the_four_actions() {
        let actions = "{key: a, action: insert, value: new}, {key: b, action: update, value: new}, \
                       {key: c, action: upsert, value: new}, {key: d, action: delete}";
        check(&[], actions, &[("a", "new"), ("c", "new")]);
        let before = [("a", "old"), ("b", "old"), ("c", "old"), ("d", "old"), ("e", "old")];
        check(
            &before,
            actions,
            &[("a", "old"), ("b", "new"), ("c", "new"), ("e", "old")],
        );
    }

    #[test]
    fn later_steps_see_earlier_ones() {
        let actions = "{key: host, action: upsert, value: h1}, {key: instance, action: insert, from_attribute: host}, \
                       {key: host, action: delete}, {key: host, action: insert, value: h2}, \
                       {key: copy, action: insert, from_attribute: missing}";
        check(&[("host", "h0")], actions, &[("host", "h2"), ("instance", "h1")]);
    }

    #[test]
    fn numbers_keep_their_type() {
        check(&[], "{key: n, action: upsert, value: 7}", &[("n", "IntValue(7)")]);
    }
}
