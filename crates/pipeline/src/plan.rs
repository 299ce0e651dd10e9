//! Why: from a configuration to a plan in one step and without I/O, so that `trackline config` and `validate` say what would run, and mistakes show
//! before anything is opened.
//!
//! The planner places the journal. Processors that hold nothing run in the request, in their order; `batch` says how much a reader takes; the journal
//! stands between them, before the fan-out to exporters. Because `batch` is no station, a stateless processor written behind it runs before the journal
//! all the same: what it removes never reaches the disk. A processor that holds data stands behind the journal, and what follows it has the journal
//! before it once more. A connector stands behind the journal of the pipelines that end in it.

use std::fmt::Write;
use std::sync::Arc;

use model::Signal;

use crate::component::Processor;
use crate::config::{Component, Config, Journal, Problem, Problems, Reference, Section, Telemetry, suggest};
use crate::processors::{Step, Take};
use crate::stage::MakeStage;

/// One line of a table of components: the caller's, because nothing here knows a component by name.
pub struct Kind<T> {
    /// Its key in the configuration.
    pub name: &'static str,
    /// Other keys it has had, before or since, in files that are around.
    pub also: &'static [&'static str],
    /// What it takes or gives; empty for what has no signal (extensions, processors that take all).
    pub signals: &'static [Signal],
    /// Reads its settings.
    pub parse: fn(&Section<'_>) -> Result<T, Problems>,
}

/// One line of the table of connectors.
pub struct Connector {
    /// Its key in the configuration.
    pub name: &'static str,
    /// Other keys it has had.
    pub also: &'static [&'static str],
    /// What it makes of what.
    pub pairs: &'static [(Signal, Signal)],
    /// Reads its settings.
    pub parse: fn(&Section<'_>) -> Result<MakeStage, Problems>,
}

/// A component that the collector had once and has no more, nor have we.
pub struct Removed {
    /// `receiver`, `processor`, `exporter`, `connector` or `extension`.
    pub what: &'static str,
    pub name: &'static str,
    /// What to write instead.
    pub instead: &'static str,
}

/// The tables of all kinds.
pub struct Tables<'t, R, X, N> {
    pub removed: &'t [Removed],
    pub receivers: &'t [Kind<R>],
    pub processors: &'t [Kind<Step>],
    pub exporters: &'t [Kind<X>],
    pub connectors: &'t [Connector],
    pub extensions: &'t [Kind<N>],
}

/// A component with its settings read.
#[derive(Debug, Clone)]
pub struct Planned<T> {
    pub name: Arc<str>,
    pub settings: T,
}

/// What is to run.
pub struct Plan<R, X, N> {
    pub receivers: Vec<Planned<R>>,
    pub exporters: Vec<Planned<X>>,
    /// Those that pipelines end in.
    pub connectors: Vec<Planned<MakeStage>>,
    pub extensions: Vec<Planned<N>>,
    pub pipelines: Vec<PlannedPipeline>,
    pub journal: Journal,
    pub telemetry: Telemetry,
    /// What is not wrong but probably not meant.
    pub warnings: Problems,
}

/// A processor that holds data, and what stands between it and the next journal.
pub struct PlannedStage {
    pub name: Arc<str>,
    pub make: MakeStage,
    /// Run on what it gives out, in this order.
    pub then: Vec<(Arc<str>, Arc<dyn Processor>)>,
}

/// One pipeline, cut where the journal stands.
pub struct PlannedPipeline {
    pub name: Arc<str>,
    pub signal: Signal,
    /// Receivers, and connectors that give to it.
    pub receivers: Vec<Arc<str>>,
    /// In the request, in this order.
    pub in_request: Vec<(Arc<str>, Arc<dyn Processor>)>,
    /// Behind the journal, in this order.
    pub stages: Vec<PlannedStage>,
    /// How much a reader takes at once.
    pub take: Take,
    /// Which processor said so.
    pub take_from: Option<Arc<str>>,
    pub exporters: Vec<Arc<str>>,
    /// Connectors that it ends in.
    pub connectors: Vec<Arc<str>>,
}

/// Makes the plan, or says everything that is wrong with the configuration.
pub fn plan<R, X, N>(config: &Config, tables: &Tables<'_, R, X, N>) -> Result<Plan<R, X, N>, Problems> {
    let mut problems = config.mistakes.clone();
    let reading = Reading {
        config,
        removed: tables.removed,
    };
    let receivers = reading.all("receiver", &config.receivers, tables.receivers, &mut problems);
    let processors = reading.all("processor", &config.processors, tables.processors, &mut problems);
    let exporters = reading.all("exporter", &config.exporters, tables.exporters, &mut problems);
    let connectors = reading.connectors(tables.connectors, &mut problems);
    let extensions = reading.all("extension", &config.extensions, tables.extensions, &mut problems);

    let mut pipelines = Vec::new();
    for pipeline in &config.pipelines {
        for (what, list) in [("receivers", &pipeline.receivers), ("exporters", &pipeline.exporters)] {
            if list.is_empty() {
                problems.push(Problem::new(
                    pipeline.span,
                    format!("the pipeline `{}` has no {what}", pipeline.id),
                ));
            }
        }
        let signal = pipeline.signal;
        let is_connector = |reference: &&Reference| config.connectors.iter().any(|it| it.id == reference.id);
        let (from_connectors, receivers): (Vec<_>, Vec<_>) = pipeline.receivers.iter().partition(is_connector);
        let (to_connectors, exporters): (Vec<_>, Vec<_>) = pipeline.exporters.iter().partition(is_connector);
        for reference in receivers {
            let found = resolve("receiver", reference, &config.receivers, &mut problems);
            if let Some(kind) = found.and_then(|found| kind_of(found, tables.receivers)) {
                check_signal("receiver", reference, kind, signal, &mut problems);
            }
        }
        for reference in &exporters {
            let found = resolve("exporter", reference, &config.exporters, &mut problems);
            if let Some(kind) = found.and_then(|found| kind_of(found, tables.exporters)) {
                check_signal("exporter", reference, kind, signal, &mut problems);
            }
        }
        for reference in &from_connectors {
            let gives = |(_, to): &(Signal, Signal)| *to == signal;
            check_connector(
                config,
                tables.connectors,
                reference,
                gives,
                "give",
                signal,
                &mut problems,
            );
        }
        for reference in &to_connectors {
            let takes = |(from, _): &(Signal, Signal)| *from == signal;
            check_connector(
                config,
                tables.connectors,
                reference,
                takes,
                "take",
                signal,
                &mut problems,
            );
        }
        let mut in_request = Vec::new();
        let mut stages: Vec<PlannedStage> = Vec::new();
        let mut take: Option<(Arc<str>, Take)> = None;
        for reference in &pipeline.processors {
            let Some(found) = resolve("processor", reference, &config.processors, &mut problems) else {
                continue;
            };
            if let Some(kind) = kind_of(found, tables.processors) {
                check_signal("processor", reference, kind, signal, &mut problems);
            }
            let name = reference.id.to_arc();
            match processors
                .iter()
                .find(|planned| *planned.name == *name)
                .map(|planned| planned.settings.clone())
            {
                Some(Step::InRequest(processor)) => match stages.last_mut() {
                    Some(stage) => stage.then.push((name, processor)),
                    None => in_request.push((name, processor)),
                },
                Some(Step::Take(_)) if take.is_some() => {
                    let message = format!("`{name}` is the second in this pipeline to say how much is sent at once");
                    problems.push(Problem::new(reference.span, message));
                }
                Some(Step::Take(settings)) => take = Some((name, settings)),
                Some(Step::Stage(make)) => {
                    if config.journal == Journal::None {
                        problems.push(needs_journal(reference));
                    }
                    stages.push(PlannedStage {
                        name,
                        make,
                        then: Vec::new(),
                    });
                }
                // Its settings did not read; that has been reported.
                None => {}
            }
        }
        if config.journal == Journal::None {
            problems.extend(to_connectors.iter().map(|reference| needs_journal(reference)));
        }
        let names = |list: &[&Reference]| list.iter().map(|reference| reference.id.to_arc()).collect();
        pipelines.push(PlannedPipeline {
            name: pipeline.id.to_arc(),
            signal,
            receivers: pipeline
                .receivers
                .iter()
                .map(|reference| reference.id.to_arc())
                .collect(),
            in_request,
            stages,
            take_from: take.as_ref().map(|(name, _)| Arc::clone(name)),
            take: take.map(|(_, take)| take).unwrap_or_default(),
            exporters: names(&exporters),
            connectors: names(&to_connectors),
        });
    }
    check_joints(config, tables.connectors, &pipelines, &mut problems);

    let mut started = Vec::new();
    let mut extensions: Vec<Option<Planned<N>>> = extensions.into_iter().map(Some).collect();
    for reference in &config.started_extensions {
        resolve("extension", reference, &config.extensions, &mut problems);
        let at = extensions
            .iter()
            .position(|slot| slot.as_ref().is_some_and(|it| *it.name == *reference.id.as_str()));
        started.extend(at.and_then(|at| extensions[at].take()));
    }
    if !problems.is_empty() {
        return Err(config.problems(problems));
    }

    let mut warnings = config.warnings();
    let used = |name: &str| {
        pipelines.iter().any(|pipeline| {
            let stages = pipeline.stages.iter();
            let behind = stages.flat_map(|stage| stage.then.iter().map(|(name, _)| name).chain([&stage.name]));
            let processors = pipeline
                .in_request
                .iter()
                .map(|(name, _)| name)
                .chain(&pipeline.take_from)
                .chain(behind);
            pipeline
                .receivers
                .iter()
                .chain(&pipeline.exporters)
                .chain(&pipeline.connectors)
                .chain(processors)
                .any(|used| **used == *name)
        })
    };
    for (what, components) in [
        ("receiver", &config.receivers),
        ("processor", &config.processors),
        ("exporter", &config.exporters),
        ("connector", &config.connectors),
    ] {
        for unused in components.iter().filter(|component| !used(component.id.as_str())) {
            let message = format!("no pipeline uses the {what} `{}`; it is not started", unused.id);
            warnings.push(Problem::new(unused.span, message));
        }
    }
    for unused in extensions.iter().flatten() {
        if let Some(component) = config
            .extensions
            .iter()
            .find(|component| *component.id.as_str() == *unused.name)
        {
            let message = format!(
                "`service.extensions` does not list `{}`; it is not started",
                unused.name
            );
            warnings.push(Problem::new(component.span, message));
        }
    }
    let in_pipelines = |name: &Arc<str>, of: fn(&PlannedPipeline) -> &Vec<Arc<str>>| {
        pipelines.iter().any(|pipeline| of(pipeline).contains(name))
    };
    let receivers = receivers
        .into_iter()
        .filter(|it| in_pipelines(&it.name, |pipeline| &pipeline.receivers))
        .collect();
    let exporters = exporters
        .into_iter()
        .filter(|it| in_pipelines(&it.name, |pipeline| &pipeline.exporters))
        .collect();
    let connectors = connectors
        .into_iter()
        .filter(|it| in_pipelines(&it.name, |pipeline| &pipeline.connectors))
        .collect();
    Ok(Plan {
        receivers,
        exporters,
        connectors,
        extensions: started,
        journal: config.journal.clone(),
        telemetry: config.telemetry.clone(),
        warnings: config.problems(warnings),
        pipelines,
    })
}

fn kind_of<'t, T>(component: &Component, table: &'t [Kind<T>]) -> Option<&'t Kind<T>> {
    let key = component.id.kind();
    table.iter().find(|kind| kind.name == key || kind.also.contains(&key))
}

/// What reading components of every kind has in common.
struct Reading<'c> {
    config: &'c Config,
    removed: &'c [Removed],
}

impl Reading<'_> {
    fn all<T>(
        &self,
        what: &str,
        components: &[Component],
        table: &[Kind<T>],
        problems: &mut Vec<Problem>,
    ) -> Vec<Planned<T>> {
        let mut planned = Vec::new();
        for component in components {
            let Some(kind) = kind_of(component, table) else {
                problems.push(self.unknown(what, component, table.iter().map(|kind| kind.name)));
                continue;
            };
            match (kind.parse)(&self.config.section(component)) {
                Ok(settings) => planned.push(Planned {
                    name: component.id.to_arc(),
                    settings,
                }),
                // Who names an extension reads its settings too, and finds the same mistakes.
                Err(more) => {
                    for problem in more.list {
                        if !problems.contains(&problem) {
                            problems.push(problem);
                        }
                    }
                }
            }
        }
        planned
    }

    fn connectors(&self, table: &[Connector], problems: &mut Vec<Problem>) -> Vec<Planned<MakeStage>> {
        let mut planned = Vec::new();
        for component in &self.config.connectors {
            let same = |other: &&Component| other.id == component.id;
            let (receivers, exporters) = (self.config.receivers.iter(), self.config.exporters.iter());
            if receivers.chain(exporters).any(|other| same(&other)) {
                let message = format!(
                    "`{}` is a connector and something else; a pipeline could mean either",
                    component.id
                );
                problems.push(Problem::new(component.span, message));
            }
            let Some(kind) = connector_of(component, table) else {
                problems.push(self.unknown("connector", component, table.iter().map(|kind| kind.name)));
                continue;
            };
            match (kind.parse)(&self.config.section(component)) {
                Ok(settings) => planned.push(Planned {
                    name: component.id.to_arc(),
                    settings,
                }),
                Err(more) => problems.extend(more.list),
            }
        }
        planned
    }

    fn unknown<'t>(&self, what: &str, component: &Component, known: impl Iterator<Item = &'t str>) -> Problem {
        let kind = component.id.kind();
        let removed = |it: &&Removed| it.what == what && it.name == kind;
        match self.removed.iter().find(removed) {
            Some(removed) => {
                Problem::new(component.span, format!("the {what} `{kind}` is gone")).hint(removed.instead.to_owned())
            }
            None => Problem::new(component.span, format!("unknown {what} `{kind}`")).hint(suggest(kind, known)),
        }
    }
}

fn resolve<'c>(
    what: &str,
    reference: &Reference,
    components: &'c [Component],
    problems: &mut Vec<Problem>,
) -> Option<&'c Component> {
    let found = components.iter().find(|component| component.id == reference.id);
    if found.is_none() {
        let problem = Problem::new(reference.span, format!("the {what} `{}` is not defined", reference.id));
        problems.push(problem.hint(suggest(
            reference.id.as_str(),
            components.iter().map(|component| component.id.as_str()),
        )));
    }
    found
}

fn check_signal<T>(what: &str, reference: &Reference, kind: &Kind<T>, signal: Signal, problems: &mut Vec<Problem>) {
    if !kind.signals.is_empty() && !kind.signals.contains(&signal) {
        let takes: Vec<&str> = kind.signals.iter().map(|signal| signal.as_str()).collect();
        let message = format!("the {what} `{}` has nothing to do with {signal}", reference.id);
        let hint = format!("it is for {}", takes.join(" and "));
        problems.push(Problem::new(reference.span, message).hint(hint));
    }
}

fn connector_of<'t>(component: &Component, table: &'t [Connector]) -> Option<&'t Connector> {
    let key = component.id.kind();
    table.iter().find(|kind| kind.name == key || kind.also.contains(&key))
}

fn check_connector(
    config: &Config,
    table: &[Connector],
    reference: &Reference,
    fits: impl Fn(&(Signal, Signal)) -> bool,
    verb: &str,
    signal: Signal,
    problems: &mut Vec<Problem>,
) {
    let component = config.connectors.iter().find(|component| component.id == reference.id);
    // One of an unknown kind has been reported.
    let Some(kind) = component.and_then(|component| connector_of(component, table)) else {
        return;
    };
    if !kind.pairs.iter().any(fits) {
        let pairs: Vec<String> = kind.pairs.iter().map(|(from, to)| format!("{to} of {from}")).collect();
        let message = format!("the connector `{}` does not {verb} {signal}", reference.id);
        problems.push(Problem::new(reference.span, message).hint(format!("it makes {}", pairs.join(", "))));
    }
}

fn needs_journal(reference: &Reference) -> Problem {
    let message = format!("`{}` holds data, which would be lost with the process", reference.id);
    Problem::new(reference.span, message).hint("it needs the journal: leave out `service.journal: none`".to_owned())
}

/// Whatever a connector takes has somebody who wants what becomes of it, and the other way round; and no way leads back to where it began.
fn check_joints(config: &Config, table: &[Connector], pipelines: &[PlannedPipeline], problems: &mut Vec<Problem>) {
    for connector in &config.connectors {
        let Some(kind) = connector_of(connector, table) else {
            continue;
        };
        let is_it = |name: &Arc<str>| **name == *connector.id.as_str();
        let into = || {
            pipelines
                .iter()
                .filter(|pipeline| pipeline.connectors.iter().any(is_it))
        };
        let out_of = || pipelines.iter().filter(|pipeline| pipeline.receivers.iter().any(is_it));
        let fits = |from: &PlannedPipeline, to: &PlannedPipeline| kind.pairs.contains(&(from.signal, to.signal));
        for from in into().filter(|from| !out_of().any(|to| fits(from, to))) {
            let message = format!(
                "no pipeline takes what the connector `{}` makes of `{}`",
                connector.id, from.name
            );
            let hint = "name it under `receivers` of a pipeline".to_owned();
            problems.push(Problem::new(connector.span, message).hint(hint));
        }
        for to in out_of().filter(|to| !into().any(|from| fits(from, to))) {
            let message = format!(
                "no pipeline gives the connector `{}` what `{}` is made of",
                connector.id, to.name
            );
            let hint = "name it under `exporters` of a pipeline".to_owned();
            problems.push(Problem::new(connector.span, message).hint(hint));
        }
    }
    for (at, pipeline) in pipelines.iter().enumerate() {
        // Told once, at the first pipeline of the circle.
        let Some(way) = circle_through(pipelines, at).filter(|way| way.iter().min() == Some(&at)) else {
            continue;
        };
        let names: Vec<&str> = way.iter().chain([&at]).map(|&at| &*pipelines[at].name).collect();
        let written = config.pipelines.iter().find(|it| *it.id.as_str() == *pipeline.name);
        let message = format!("these pipelines feed one another in a circle: {}", names.join(" → "));
        problems.push(Problem::new(written.map(|it| it.span), message));
    }
}

/// The shortest way from a pipeline through others back to it, if there is one.
fn circle_through(pipelines: &[PlannedPipeline], first: usize) -> Option<Vec<usize>> {
    let mut came_from: Vec<Option<usize>> = vec![None; pipelines.len()];
    let mut reached = std::collections::VecDeque::from([first]);
    while let Some(at) = reached.pop_front() {
        for next in following(pipelines, at) {
            if came_from[next].is_none() {
                came_from[next] = Some(at);
                reached.push_back(next);
            }
        }
    }
    let mut way = Vec::new();
    let mut at = came_from[first]?;
    while at != first {
        way.push(at);
        at = came_from[at]?;
    }
    way.push(first);
    way.reverse();
    Some(way)
}

/// The pipelines that take what this one ends in.
fn following(pipelines: &[PlannedPipeline], at: usize) -> impl Iterator<Item = usize> {
    let gives = move |next: &PlannedPipeline| pipelines[at].connectors.iter().any(|it| next.receivers.contains(it));
    (0..pipelines.len()).filter(move |&next| gives(&pipelines[next]))
}

impl<R, X, N> Plan<R, X, N> {
    /// A picture of where everything stands; `journal` says where the journal is (nothing, if there is none).
    pub fn describe(&self, journal: Option<&str>) -> String {
        let mut out = String::new();
        for pipeline in &self.pipelines {
            let _ = writeln!(out, "{}", pipeline.name);
            let mut stations = vec![pipeline.receivers.join(", ")];
            stations.extend(pipeline.in_request.iter().map(|(name, _)| name.to_string()));
            if journal.is_some() {
                stations.push("[journal]".to_owned());
            }
            let _ = writeln!(out, "  in the request   {}", stations.join(" ─► "));
            for stage in &pipeline.stages {
                let then = stage.then.iter().map(|(name, _)| name.to_string());
                let stations: Vec<String> = [stage.name.to_string()].into_iter().chain(then).collect();
                let _ = writeln!(out, "  behind it        {} ─► [journal]", stations.join(" ─► "));
            }
            let take = describe_take(pipeline);
            let ends: Vec<String> = pipeline
                .exporters
                .iter()
                .map(|exporter| format!("{exporter}{take}"))
                .chain(
                    pipeline
                        .connectors
                        .iter()
                        .map(|connector| format!("{connector} (connector)")),
                )
                .collect();
            for (index, end) in ends.iter().enumerate() {
                let title = match (index, journal) {
                    (0, Some(_)) => "behind it      ",
                    (0, None) => "acknowledged by",
                    _ => "               ",
                };
                let branch = if index + 1 == ends.len() {
                    "└─►"
                } else {
                    "├─►"
                };
                let _ = writeln!(out, "  {title}  {branch} {end}");
            }
        }
        match journal {
            Some(place) => {
                let _ = writeln!(out, "journal: {place}");
            }
            None => {
                let _ = writeln!(
                    out,
                    "journal: none; a sender hears \"accepted\" when the exporters have it"
                );
            }
        }
        out
    }
}

fn describe_take(pipeline: &PlannedPipeline) -> String {
    let Some(name) = &pipeline.take_from else {
        return String::new();
    };
    let unit = pipeline.signal.items();
    let mut text = match pipeline.take.items {
        u32::MAX => format!(" ({name}: after {:?}", pipeline.take.wait),
        items => format!(" ({name}: {items} {unit} or {:?}", pipeline.take.wait),
    };
    if let Some(max) = pipeline.take.max_items {
        let _ = write!(text, ", at most {max}");
    }
    if let Some(apart) = pipeline.take.apart.as_ref().filter(|apart| !apart.keys.is_empty()) {
        let _ = write!(text, ", apart by {}", apart.keys.join(" and "));
    }
    text.push(')');
    text
}
