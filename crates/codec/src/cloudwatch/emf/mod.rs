//! OTLP metrics to the embedded metric format: events of which CloudWatch makes metrics, as the Collector's `awsemf` exporter writes them.
//!
//! Points of the same time and labels become one event. CloudWatch adds up what it gets, so cumulative sums and histograms become what was added since the
//! last point ([`series`]). Its statistics want extremes: where a histogram's point has none of its own, they are the bounds of its outermost buckets.
//!
//! Source: Amazon CloudWatch User Guide, "Specification: Embedded metric format"; README of the Collector's `awsemf` exporter.

mod declaration;
mod event;
mod series;
mod value;

use std::collections::HashMap;

use model::view::metrics::{Data, Metric, Number, resource_metrics};
use model::view::{Attributes, Resource};

pub use declaration::{Declaration, LabelMatcher};

use self::event::{Group, Measured};
use self::series::{Adjusted, Series};
use self::value::Value;
use super::name::{Name, Template};
use super::{MAX_TRANSLATED_BYTES, Translated, milliseconds};
use crate::value_text;

/// The name of the scope is a label of this name.
pub(crate) const SCOPE_LABEL: &str = "OTelLib";

/// An attribute of the resource that says which receiver the data came from.
const RECEIVER: &str = "receiver";
const PROMETHEUS: &str = "prometheus";

/// What says which service the resource is.
const SERVICE: [&str; 3] = ["service.name", "service.namespace", "service.instance.id"];

const DEFAULT_NAMESPACE: &str = "default";

/// CloudWatch's bounds on names and values, in characters.
const MAX_METRIC_NAME_CHARS: usize = 1024;
const MAX_NAMESPACE_CHARS: usize = 255;

/// Quantiles of one point that become metrics, each with a copy of its labels.
const MAX_QUANTILES: usize = 20;

const TOO_MUCH: &str = "labels and names that are larger together than what is made of one payload";

/// Names and values, sorted by name.
type Labels = Vec<(String, String)>;

/// The flag of a point that says that it has no value.
const NO_VALUE: u32 = 1;

/// `dimension_rollup_option`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rollup {
    /// Also without dimensions, and with each one alone.
    #[default]
    ZeroAndSingle,
    /// Also with each dimension alone.
    Single,
    /// Only with all of them.
    None,
}

/// How CloudWatch is told of the metrics in an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    V0,
    #[default]
    V1,
}

/// A unit for a metric of this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitRule {
    pub metric: String,
    pub unit: String,
    /// Even if the metric has one.
    pub overwrite: bool,
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Options {
    /// Empty: the service's namespace and name.
    pub namespace: String,
    /// `None`: `/metrics/` and the namespace.
    pub group: Option<Template>,
    pub stream: Template,
    pub rollup: Rollup,
    pub version: Version,
    /// Whether CloudWatch is to make metrics at all.
    pub extracts: bool,
    /// Whether attributes of the resource become labels.
    pub resource_labels: bool,
    /// Whether `service.name`, `service.namespace` and `service.instance.id` are not among them.
    pub leaves_out_service: bool,
    /// Whether the first point of a cumulative series counts, instead of being what the second is compared with.
    pub retains_initial: bool,
    /// Whether summaries keep their quantiles.
    pub is_detailed: bool,
    /// Labels whose texts are JSON and become that.
    pub json_labels: Vec<String>,
    /// Which metrics get which dimensions; empty: all of them all.
    pub declarations: Vec<Declaration>,
    pub units: Vec<UnitRule>,
}

/// Makes events of metrics, and remembers what cumulative series were at.
#[derive(Debug)]
pub struct Encoder {
    options: Options,
    series: Series,
}

/// What the points of a payload have in common.
struct Origin<'a> {
    resource: Resource<'a>,
    scope_name: &'a str,
    /// Of resource and scope.
    hashes: series::Hashes,
    namespace: String,
    /// Group and stream, with what the resource knows.
    places: [Template; 2],
    is_prometheus: bool,
    received_at_unix_nano: u64,
}

/// Groups being filled.
#[derive(Default)]
struct Filling {
    groups: Vec<Group>,
    by_key: HashMap<Vec<u8>, usize>,
    /// What labels and names were made of so far.
    bytes: usize,
    out: Translated,
}

impl Encoder {
    pub fn new(options: Options) -> Encoder {
        Encoder {
            options,
            series: Series::default(),
        }
    }

    /// The events of a metrics payload that came from this receiver. Each payload must come once only, and in order.
    pub fn encode(&mut self, payload: &[u8], received_at_unix_nano: u64, receiver: &str) -> Translated {
        self.series.expire(received_at_unix_nano);
        let mut filling = Filling::default();
        for resource_group in resource_metrics(payload) {
            let resource = resource_group.owner();
            let said = resource.attributes.get_str(RECEIVER);
            let of_resource = self.series.hashes([0, 0], resource.raw);
            let namespace = self.namespace(&resource);
            let mut origin = Origin {
                resource,
                scope_name: "",
                hashes: of_resource,
                places: self.places(&resource, &namespace),
                namespace,
                is_prometheus: said == Some(PROMETHEUS) || receiver.starts_with(PROMETHEUS),
                received_at_unix_nano,
            };
            for scope_group in resource_group.list() {
                origin.scope_name = scope_group.owner().name;
                origin.hashes = self.series.hashes(of_resource, origin.scope_name.as_bytes());
                for metric in scope_group.list() {
                    self.metric(&origin, &metric, &mut filling);
                }
            }
        }
        let Filling { groups, mut out, .. } = filling;
        for group in &groups {
            event::write(group, &self.options, &mut out);
        }
        out
    }

    /// How many series are remembered.
    pub fn remembered(&self) -> usize {
        self.series.len()
    }

    fn namespace(&self, resource: &Resource<'_>) -> String {
        let given = |key: &str| resource.attributes.get_str(key).filter(|text| !text.is_empty());
        let namespace = match (given("service.namespace"), given("service.name")) {
            _ if !self.options.namespace.is_empty() => self.options.namespace.clone(),
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            (Some(one), None) | (None, Some(one)) => one.to_owned(),
            (None, None) => DEFAULT_NAMESPACE.to_owned(),
        };
        namespace.chars().take(MAX_NAMESPACE_CHARS).collect()
    }

    fn places(&self, resource: &Resource<'_>, namespace: &str) -> [Template; 2] {
        let group = match &self.options.group {
            Some(template) => template.settled_by(&resource.attributes),
            None => Template::fixed(Name::Group, &format!("/metrics/{namespace}")),
        };
        [group, self.options.stream.settled_by(&resource.attributes)]
    }

    fn metric(&mut self, origin: &Origin<'_>, metric: &Metric<'_>, filling: &mut Filling) {
        let name_chars = metric.name.chars().take(MAX_METRIC_NAME_CHARS + 1).count();
        if !(1..=MAX_METRIC_NAME_CHARS).contains(&name_chars) || event::is_reserved(metric.name, self.options.version) {
            let points = points_of(&metric.data);
            return filling
                .out
                .reject(points, "a metric's name that CloudWatch does not take");
        }
        let of_metric = self.series.hashes(origin.hashes, metric.name.as_bytes());
        match metric.data {
            Data::None => {}
            Data::Gauge { points } => {
                for point in points.iter() {
                    let taken = match number(point.value) {
                        _ if point.flags & NO_VALUE != 0 => continue,
                        Some(number) => Ok(Value::Number(number)),
                        None => continue,
                    };
                    self.add(
                        origin,
                        metric,
                        "gauge",
                        &point.attributes,
                        point.time_unix_nano,
                        taken,
                        filling,
                    );
                }
            }
            Data::Sum {
                points,
                temporality,
                is_monotonic,
            } => {
                for point in points.iter() {
                    let Some(value) = number(point.value).filter(|_| point.flags & NO_VALUE == 0) else {
                        continue;
                    };
                    // What goes up and down is told as it stands: what was added would say nothing.
                    let taken = if temporality == CUMULATIVE && is_monotonic {
                        let span = (point.start_unix_nano, point.time_unix_nano);
                        let key = series::Key {
                            origin: of_metric,
                            attributes: point.attributes,
                        };
                        let adjusted = self.series.number(key, span, value, origin.received_at_unix_nano);
                        match self.kept(adjusted, value) {
                            Ok(Some(value)) => Ok(Value::Number(value)),
                            Ok(None) => continue,
                            Err(why) => Err(why),
                        }
                    } else {
                        Ok(Value::Number(value))
                    };
                    self.add(
                        origin,
                        metric,
                        "counter",
                        &point.attributes,
                        point.time_unix_nano,
                        taken,
                        filling,
                    );
                }
            }
            Data::Histogram { points, temporality } => {
                for point in points.iter().filter(|point| point.flags & NO_VALUE == 0) {
                    let whole = value::Observed::of_histogram(&point);
                    let taken = if temporality == CUMULATIVE {
                        let span = (point.start_unix_nano, point.time_unix_nano);
                        let key = series::Key {
                            origin: of_metric,
                            attributes: point.attributes,
                        };
                        let adjusted = self.series.observed(key, span, &whole, origin.received_at_unix_nano);
                        match self.kept(adjusted, whole) {
                            Ok(Some(observed)) => Ok(observed),
                            Ok(None) => continue,
                            Err(why) => Err(why),
                        }
                    } else {
                        Ok(whole)
                    };
                    let taken = match taken.map(|observed| observed.statistics()) {
                        Ok(None) => continue,
                        Ok(Some(value)) => Ok(value),
                        Err(why) => Err(why),
                    };
                    self.add(
                        origin,
                        metric,
                        "histogram",
                        &point.attributes,
                        point.time_unix_nano,
                        taken,
                        filling,
                    );
                }
            }
            Data::ExponentialHistogram { points, temporality } => {
                for point in points.iter().filter(|point| point.flags & NO_VALUE == 0) {
                    let taken = if temporality == CUMULATIVE {
                        let whole = value::Observed::of_exponential(&point);
                        let span = (point.start_unix_nano, point.time_unix_nano);
                        let key = series::Key {
                            origin: of_metric,
                            attributes: point.attributes,
                        };
                        let adjusted = self.series.observed(key, span, &whole, origin.received_at_unix_nano);
                        self.kept(adjusted, whole)
                            .map(|kept| kept.and_then(|observed| observed.statistics()))
                    } else {
                        Ok(value::distribution(&point))
                    };
                    let taken = match taken {
                        Ok(None) => continue,
                        Ok(Some(value)) => Ok(value),
                        Err(why) => Err(why),
                    };
                    self.add(
                        origin,
                        metric,
                        "histogram",
                        &point.attributes,
                        point.time_unix_nano,
                        taken,
                        filling,
                    );
                }
            }
            Data::Summary { points } => {
                for point in points.iter().filter(|point| point.flags & NO_VALUE == 0) {
                    let mut observed = value::Observed::of_summary(&point);
                    // Prometheus's summaries count from the start; those of SDKs start anew with each.
                    if origin.is_prometheus {
                        let span = (point.start_unix_nano, point.time_unix_nano);
                        let key = series::Key {
                            origin: of_metric,
                            attributes: point.attributes,
                        };
                        let adjusted = self.series.observed(key, span, &observed, origin.received_at_unix_nano);
                        match self.kept(adjusted, observed) {
                            Ok(Some(kept)) => observed = kept,
                            Ok(None) => continue,
                            Err(why) => {
                                filling.out.reject(1, why);
                                continue;
                            }
                        }
                    }
                    self.summary(origin, metric, &point, &observed, filling);
                }
            }
        }
    }

    fn summary(
        &self,
        origin: &Origin<'_>,
        metric: &Metric<'_>,
        point: &model::view::metrics::SummaryPoint<'_>,
        observed: &value::Observed,
        filling: &mut Filling,
    ) {
        let time = point.time_unix_nano;
        if !self.options.is_detailed {
            if let Some(value) = observed.statistics() {
                self.add(origin, metric, "summary", &point.attributes, time, Ok(value), filling);
            }
            return;
        }
        let copies = 2 + point.quantiles.iter().take(MAX_QUANTILES).count();
        let Some(labels) = self.labels(origin, metric, &point.attributes, copies, filling) else {
            return filling.out.reject(1, TOO_MUCH);
        };
        let unit = self.unit(metric);
        let mut put = |name: String, labels: Labels, value: f64, points: u32| {
            let measured = Measured {
                name,
                unit,
                value: Value::Number(value),
                points,
            };
            self.put(origin, "summary", &point.attributes, labels, time, measured, filling);
        };
        put(format!("{}_sum", metric.name), labels.clone(), observed.sum, 1);
        put(
            format!("{}_count", metric.name),
            labels.clone(),
            observed.count as f64,
            0,
        );
        for quantile in point.quantiles.iter().take(MAX_QUANTILES) {
            let mut labels = labels.clone();
            let of = quantile.quantile.to_string();
            match labels.binary_search_by(|(name, _)| name.as_str().cmp("quantile")) {
                Ok(at) => labels[at].1 = of,
                Err(at) => labels.insert(at, ("quantile".to_owned(), of)),
            }
            put(metric.name.to_owned(), labels, quantile.value, 0);
        }
    }

    /// What is told of a point: `None` for the first of a series, which the next is compared with.
    fn kept<T>(&self, adjusted: Adjusted<T>, whole: T) -> Result<Option<T>, &'static str> {
        match adjusted {
            Adjusted::Added(added) => Ok(Some(added)),
            Adjusted::Anew => Ok(Some(whole)),
            Adjusted::First => Ok(Some(whole).filter(|_| self.options.retains_initial)),
            Adjusted::Old => Err("a point is not newer than the last one of its series"),
            Adjusted::Full => Err("more cumulative series than are remembered"),
        }
    }

    /// Puts a point where it belongs, or counts it.
    #[allow(clippy::too_many_arguments)]
    fn add(
        &self,
        origin: &Origin<'_>,
        metric: &Metric<'_>,
        kind: &'static str,
        attributes: &Attributes<'_>,
        time_unix_nano: u64,
        taken: Result<Value, &'static str>,
        filling: &mut Filling,
    ) {
        match taken {
            Ok(value) => {
                let measured = Measured {
                    name: metric.name.to_owned(),
                    unit: self.unit(metric),
                    value,
                    points: 1,
                };
                match self.labels(origin, metric, attributes, 1, filling) {
                    Some(labels) => self.put(origin, kind, attributes, labels, time_unix_nano, measured, filling),
                    None => filling.out.reject(1, TOO_MUCH),
                }
            }
            Err(why) => filling.out.reject(1, why),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn put(
        &self,
        origin: &Origin<'_>,
        kind: &'static str,
        attributes: &Attributes<'_>,
        labels: Labels,
        time_unix_nano: u64,
        measured: Measured,
        filling: &mut Filling,
    ) {
        if !measured.value.is_taken() {
            return filling
                .out
                .reject(measured.points, "a value that CloudWatch does not take, such as NaN");
        }
        let time = [time_unix_nano, origin.received_at_unix_nano]
            .into_iter()
            .find(|time| *time > 0);
        let time_unix_milli = milliseconds(time.unwrap_or_default());
        let (mut group_name, mut stream_name) = (String::new(), String::new());
        origin.places[0].write(attributes, &mut group_name);
        origin.places[1].write(attributes, &mut stream_name);
        let stream = filling.out.stream(&group_name, &stream_name);
        let mut key = Vec::with_capacity(128);
        key.extend_from_slice(&time_unix_milli.to_le_bytes());
        key.extend_from_slice(&(stream as u64).to_le_bytes());
        for text in [kind, &origin.namespace]
            .into_iter()
            .chain(labels.iter().flat_map(|(name, value)| [name.as_str(), value]))
        {
            key.extend_from_slice(&(text.len() as u64).to_le_bytes());
            key.extend_from_slice(text.as_bytes());
        }
        let at = match filling.by_key.get(&key) {
            // A second value of the same name at the same time is an event of its own; CloudWatch adds them up.
            Some(at) if filling.groups[*at].has_room_for(&measured.name) => *at,
            _ => {
                let at = filling.groups.len();
                filling.groups.push(Group {
                    stream,
                    namespace: origin.namespace.clone(),
                    time_unix_milli,
                    kind: origin.is_prometheus.then_some(kind),
                    labels,
                    metrics: Vec::new(),
                });
                filling.by_key.insert(key, at);
                at
            }
        };
        filling.groups[at].metrics.push(measured);
    }

    /// Sorted by name; where two have the same, the resource's goes before the point's and the scope's before both. `None` where a payload wants more than
    /// is made of one; `copies` are made of them, and of the names that stand beside them.
    fn labels(
        &self,
        origin: &Origin<'_>,
        metric: &Metric<'_>,
        attributes: &Attributes<'_>,
        copies: usize,
        filling: &mut Filling,
    ) -> Option<Labels> {
        let resource = self.options.resource_labels.then_some(origin.resource.attributes);
        let attributes = [Some(*attributes), resource];
        let raw = attributes
            .iter()
            .flatten()
            .map(|list| list.stretch().len())
            .sum::<usize>();
        filling.bytes += (raw + origin.scope_name.len() + origin.namespace.len() + metric.name.len()) * copies;
        if filling.bytes > MAX_TRANSLATED_BYTES {
            return None;
        }
        let mut labels = Vec::new();
        let is_left_out = |of: usize, name: &str| of == 1 && self.options.leaves_out_service && SERVICE.contains(&name);
        let lists = attributes.iter().flatten().enumerate();
        let pairs = lists.flat_map(|(of, list)| list.iter().map(move |pair| (of, pair)));
        for (of, pair) in pairs {
            if is_left_out(of, pair.key) {
                continue;
            }
            let mut text = Vec::new();
            value_text::write_text(&pair.value, &mut text);
            labels.push((pair.key.to_owned(), String::from_utf8(text).unwrap_or_default()));
        }
        if !origin.scope_name.is_empty() {
            labels.push((SCOPE_LABEL.to_owned(), origin.scope_name.to_owned()));
        }
        // Stable, and the last of a name stays.
        labels.reverse();
        labels.sort_by(|one, other| one.0.cmp(&other.0));
        labels.dedup_by(|one, kept| one.0 == kept.0);
        Some(labels)
    }

    fn unit(&self, metric: &Metric<'_>) -> &'static str {
        let rule = self.options.units.iter().find(|rule| rule.metric == metric.name);
        match rule {
            Some(rule) if metric.unit.is_empty() || rule.overwrite => unit(&rule.unit),
            _ => unit(metric.unit),
        }
    }
}

/// The temporality of points that count from the start.
const CUMULATIVE: i32 = 2;

fn number(number: Number) -> Option<f64> {
    match number {
        Number::None => None,
        Number::Int(value) => Some(value as f64),
        Number::Double(value) => Some(value),
    }
}

fn points_of(data: &Data<'_>) -> u32 {
    let count = match data {
        Data::None => 0,
        Data::Gauge { points } | Data::Sum { points, .. } => points.count(),
        Data::Histogram { points, .. } => points.count(),
        Data::ExponentialHistogram { points, .. } => points.count(),
        Data::Summary { points } => points.count(),
    };
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Units that CloudWatch knows.
pub const UNITS: [&str; 27] = [
    "Seconds",
    "Microseconds",
    "Milliseconds",
    "Bytes",
    "Kilobytes",
    "Megabytes",
    "Gigabytes",
    "Terabytes",
    "Bits",
    "Kilobits",
    "Megabits",
    "Gigabits",
    "Terabits",
    "Percent",
    "Count",
    "Bytes/Second",
    "Kilobytes/Second",
    "Megabytes/Second",
    "Gigabytes/Second",
    "Terabytes/Second",
    "Bits/Second",
    "Kilobits/Second",
    "Megabits/Second",
    "Gigabits/Second",
    "Terabits/Second",
    "Count/Second",
    "None",
];

/// CloudWatch's name of a unit of UCUM; empty where it has none, because it drops metrics with a unit that it does not know.
fn unit(unit: &str) -> &'static str {
    match unit {
        "s" => "Seconds",
        "ms" => "Milliseconds",
        "us" => "Microseconds",
        "By" => "Bytes",
        "kBy" => "Kilobytes",
        "MBy" => "Megabytes",
        "GBy" => "Gigabytes",
        "TBy" => "Terabytes",
        "Bi" | "bit" => "Bits",
        "%" => "Percent",
        "By/s" => "Bytes/Second",
        "bit/s" => "Bits/Second",
        other if other.starts_with('{') && other.ends_with("}/s") => "Count/Second",
        other if other.starts_with('{') && other.ends_with('}') => "Count",
        other => UNITS.iter().find(|known| **known == other).copied().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
