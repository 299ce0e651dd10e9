//! Why: two that want one address are found when the doors are mounted; `trackline validate` mounts them on doors that never open, so that it says so at
//! the line that names the second.

use std::sync::Arc;

use model::Batch;
use net::{At, Doors, Endpoint, Mount};
use pipeline::config::{Component, Config, Journal, Problem, Span};
use pipeline::plan::Planned;
use pipeline::{Ack, Budget, Entry, Intake, Ledger};

use crate::tables::{ExporterSettings, ExtensionSettings, ServerPlan};

/// What mounting would say, found without opening anything.
#[derive(Default)]
pub struct DoorCheck {
    pub mistakes: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

/// Whether everything that listens finds its place on the doors: two receivers on one port, or one and an extension or an exporter.
pub fn check_doors(plan: ServerPlan, config: &Config) -> DoorCheck {
    let mut check = DoorCheck::default();
    let (mut doors, ledger, budget) = (Doors::new(), Ledger::new(), Budget::root("check", 0));
    let place = |components: &[Component], name: &str| {
        let found = components.iter().find(|component| component.id.as_str() == name);
        found.map(|component| component.span)
    };
    // Whoever has a place by now, with where it stands.
    let mut taken: Vec<(String, Option<Span>)> = Vec::new();
    for Planned { name, settings } in &plan.exporters {
        let ExporterSettings::Other(settings) = settings else {
            continue;
        };
        let span = place(&config.exporters, name);
        if let Err(collision) = settings.claim(name, &mut doors) {
            check.mistakes.push(mistake(span, collision.to_string(), &taken));
        }
        taken.push((format!("exporter {name}"), span));
    }
    for Planned { name, settings } in plan.receivers {
        let span = place(&config.receivers, &name);
        let nowhere: Arc<dyn Entry> = Arc::new(|_: Batch, ack: Ack| drop(ack));
        let feeds = plan
            .pipelines
            .iter()
            .filter(|pipeline| pipeline.receivers.contains(&name));
        let routes = feeds.map(|pipeline| (pipeline.signal, nowhere.clone())).collect();
        match settings.mount(Intake::new(&name, &ledger, budget.clone(), routes), &mut doors) {
            Ok(mounted) => {
                // A check opens no journal; only a configuration without one forgets.
                let forgets = mounted.forgets.filter(|_| matches!(plan.journal, Journal::None));
                let warnings = mounted.warnings.into_iter().chain(forgets);
                check
                    .warnings
                    .extend(warnings.map(|warning| Problem::new(span, warning)));
            }
            Err(error) => check.mistakes.push(mistake(span, error.to_string(), &taken)),
        }
        taken.push((format!("receiver {name}"), span));
    }
    for Planned { name, settings } in &plan.extensions {
        let Some((endpoint, at)) = settings.listens() else {
            continue;
        };
        let service = net::handler_fn(|_| async { net::Response::new(net::empty_body()) });
        if let Err(collision) = doors.mount(&endpoint, &format!("extension {name}"), Mount::Http { at, service }) {
            let span = place(&config.extensions, name);
            check.mistakes.push(mistake(span, collision.to_string(), &taken));
        }
        taken.push((format!("extension {name}"), place(&config.extensions, name)));
    }
    check
}

/// Two that want one place: shown where the second stands, with the line of the first.
fn mistake(span: Option<Span>, message: String, taken: &[(String, Option<Span>)]) -> Problem {
    let is_meant = |who: &str| {
        let mut rest = message.split(who).skip(1);
        // `receiver otlp` is not `receiver otlp/b`.
        rest.any(|after| !after.starts_with(|c: char| c.is_alphanumeric() || "/_-.".contains(c)))
    };
    let first = taken.iter().rev().find(|(who, at)| *at != span && is_meant(who));
    let hint = first.and_then(|(who, at)| Some(format!("the {who} stands in line {}", (*at)?.line)));
    Problem::new(span, message).hint(hint)
}

impl ExtensionSettings {
    fn listens(&self) -> Option<(Endpoint, At)> {
        let (endpoint, at) = match self {
            ExtensionSettings::Query(query) => (&query.endpoint, At::Rest),
            ExtensionSettings::HealthCheck(health) => (&health.endpoint, At::Rest),
            ExtensionSettings::Zpages(zpages) => (&zpages.endpoint, At::Rest),
            ExtensionSettings::FileStorage(_) | ExtensionSettings::Authenticator => return None,
        };
        endpoint.parse().ok().map(|endpoint| (endpoint, at))
    }
}
