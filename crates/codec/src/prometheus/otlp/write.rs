//! Why: what was collected is written once, from the front to the back, as canonical OTLP.

use model::wire::{BYTES, VARINT, close_length, open_length, put_bytes, put_fixed64, put_tag, put_varint, varint_len};
use model::{SpanId, TraceId};

use super::{Builder, Built, Form, Job, Metric, NONE, Part, Resource, Role, TooLarge, What, nanos, scope_label};
use crate::prometheus::series::{NAME, SeriesRef, is_stale};
use crate::prometheus::{FLAG_NO_RECORDED_VALUE, Kind, TEMPORALITY_CUMULATIVE, TYPE_KEY, number};

impl<'a> Builder<'a> {
    pub(super) fn write(mut self) -> Result<Built, TooLarge> {
        let mut built = std::mem::take(&mut self.built);
        let mut out = Vec::new();
        let mut parts = Vec::new();
        for resource in &self.resources {
            let scopes = || resource.scopes.iter().map(|scope| &self.scopes[*scope as usize]);
            let mut scopes = scopes().filter(|scope| !scope.metrics.is_empty()).peekable();
            if scopes.peek().is_none() {
                continue;
            }
            put_tag(&mut out, 1, BYTES);
            let open_group = open_length(&mut out, EXPECTED_BYTES);
            self.put_resource(&mut out, resource);
            for scope in scopes {
                put_tag(&mut out, 2, BYTES);
                let open_scope = open_length(&mut out, EXPECTED_BYTES);
                put_scope(&mut out, &scope.labels);
                for metric in &scope.metrics {
                    self.put_metric(&mut out, &self.metrics[*metric as usize], &mut parts, &mut built)?;
                }
                if let Some((_, url)) = scope.labels.iter().find(|(name, _)| *name == SCHEMA_URL) {
                    put_bytes(&mut out, 3, url.as_bytes());
                }
                close_length(&mut out, open_scope);
            }
            close_length(&mut out, open_group);
        }
        built.payload = out;
        Ok(built)
    }

    fn put_resource(&self, out: &mut Vec<u8>, resource: &Resource<'_>) {
        put_tag(out, 1, BYTES);
        let open = open_length(out, 128);
        let (mut namespace, mut name) = ("", resource.job);
        if self.options.job == Job::Parted
            && let Some((before, behind)) = resource.job.split_once('/')
        {
            // One without a namespace or a name is another job when it is put together again.
            if !before.is_empty() && !behind.is_empty() {
                (namespace, name) = (before, behind);
            }
        }
        let service = [
            ("service.namespace", namespace),
            ("service.name", name),
            ("service.instance.id", resource.instance),
        ];
        for (key, value) in service.into_iter().filter(|(_, value)| !value.is_empty()) {
            put_attribute(out, 1, key, value);
        }
        let known = match resource.target {
            Some(_) => &[],
            None => self.targets.of(resource.job, resource.instance),
        };
        let known = known.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let told = resource.target.into_iter().flat_map(SeriesRef::labels);
        for (key, value) in told.chain(known) {
            let is_taken = service.iter().any(|(known, _)| *known == key);
            if !is_taken && !matches!(key, NAME | "job" | "instance") {
                put_attribute(out, 1, key, value);
            }
        }
        close_length(out, open);
    }

    fn put_metric(
        &self,
        out: &mut Vec<u8>,
        metric: &Metric<'_>,
        parts: &mut Vec<Part>,
        built: &mut Built,
    ) -> Result<(), TooLarge> {
        let family = self.list.families[metric.family as usize];
        put_tag(out, 2, BYTES);
        let open = open_length(out, EXPECTED_BYTES);
        for (number, text) in [
            (1, metric.name),
            (2, self.list.at(family.help)),
            (3, self.list.at(family.unit)),
        ] {
            if !text.is_empty() {
                put_bytes(out, number, text.as_bytes());
            }
        }
        let number = match metric.form {
            Form::Gauge => 5,
            Form::Sum | Form::UpDown => 7,
            Form::Histogram => 9,
            Form::Exponential => 10,
            Form::Summary => 11,
        };
        put_tag(out, number, BYTES);
        let open_data = open_length(out, EXPECTED_BYTES);
        let mut at = metric.points.first;
        while at != NONE {
            let point = &self.points[at as usize];
            put_tag(out, 1, BYTES);
            let open_point = open_length(out, 127);
            built.exemplars += match point.what {
                What::Number { series, sample } => self.put_number(out, metric, series, sample),
                What::Native { series, native } => self.put_native(out, metric, series, native),
                What::Group(group) => {
                    self.parts_of(group, parts);
                    self.put_group(out, metric.form, group, parts)
                }
            };
            close_length(out, open_point);
            built.points += 1;
            if out.len() > self.options.max_bytes {
                let max_bytes = self.options.max_bytes;
                return Err(TooLarge { max_bytes });
            }
            at = point.next;
        }
        if !matches!(metric.form, Form::Gauge | Form::Summary) {
            put_tag(out, 2, VARINT);
            put_varint(out, TEMPORALITY_CUMULATIVE as u64);
        }
        if metric.form == Form::Sum {
            put_tag(out, 3, VARINT);
            put_varint(out, 1);
        }
        close_length(out, open_data);
        if natural(metric.form) != family.kind {
            put_attribute(out, 12, TYPE_KEY, family.kind.word());
        }
        close_length(out, open);
        Ok(())
    }

    /// The labels of a point that are neither its name nor told elsewhere. Bounds are spelled in one way, as Prometheus 3 has it.
    fn put_labels(&self, out: &mut Vec<u8>, number: u32, series: u32, kind: Kind, without: &str) {
        let mut is_bucket = false;
        let mut text = String::new();
        for (name, value) in self.labels(series) {
            let is_told = matches!(name, "job" | "instance") || scope_label(name).is_some() || name == without;
            if name == NAME {
                is_bucket = value.ends_with("_bucket");
            } else if !is_told {
                let is_bound = (name == "le" && is_bucket) || (name == "quantile" && kind == Kind::Summary);
                if let Some(bound) = value.parse().ok().filter(|_| is_bound) {
                    text.clear();
                    number::canonical(&mut text, bound);
                    put_attribute(out, number, name, &text);
                } else {
                    put_attribute(out, number, name, value);
                }
            }
        }
    }

    fn put_number(&self, out: &mut Vec<u8>, metric: &Metric<'_>, series: u32, sample: u32) -> u64 {
        let kind = self.list.families[metric.family as usize].kind;
        let is_last = self.is_last_sample(series, sample);
        let sample = &self.list.samples[sample as usize];
        let time_ms = sample.time_ms.unwrap_or(self.options.time_ms);
        self.put_labels(out, 7, series, kind, "");
        let start_ms = if kind.counts() { sample.start_ms } else { 0 };
        put_times(out, start_ms, time_ms);
        if is_stale(sample.value) {
            put_tag(out, 8, VARINT);
            put_varint(out, u64::from(FLAG_NO_RECORDED_VALUE));
        } else {
            put_fixed64(out, 4, sample.value.to_bits());
        }
        self.put_exemplars(out, 5, series, is_last, time_ms)
    }

    fn put_native(&self, out: &mut Vec<u8>, metric: &Metric<'_>, series: u32, native: u32) -> u64 {
        let is_last = native + 1 == self.series(series).natives.end;
        let native = &self.list.natives[native as usize];
        let time_ms = native.time_ms.unwrap_or(self.options.time_ms);
        let (attributes, exemplars) = match metric.form {
            Form::Exponential => (1, 11),
            _ => (9, 8),
        };
        self.put_labels(out, attributes, series, Kind::Histogram, "");
        put_times(out, native.start_ms, time_ms);
        out.extend_from_slice(native.body.of(&self.list.bytes));
        self.put_exemplars(out, exemplars, series, is_last, time_ms)
    }

    /// A histogram or a summary of the parts that [`Builder::parts_of`] put in order.
    fn put_group(&self, out: &mut Vec<u8>, form: Form, group: u32, parts: &[Part]) -> u64 {
        let [rest @ .., sum, count] = parts else { return 0 };
        let time_ms = self.groups[group as usize].time_ms;
        let sample = |part: &Part| self.list.samples[part.sample as usize];
        let ended = is_stale(sample(count).value);
        let number = |part: &Part| if ended { 0.0 } else { sample(part).value };
        let (attributes, kind, without) = match form {
            Form::Summary => (7, Kind::Summary, "quantile"),
            _ => (9, Kind::Histogram, "le"),
        };
        self.put_labels(out, attributes, count.series, kind, without);
        put_times(out, sample(count).start_ms, time_ms);
        put_fixed64(out, 4, number(count) as u64);
        put_fixed64(out, 5, number(sum).to_bits());
        let flags = if form == Form::Summary { 8 } else { 10 };
        if form == Form::Summary {
            for part in rest {
                let Role::Quantile(quantile) = part.role else { continue };
                put_tag(out, 6, BYTES);
                put_varint(out, 18);
                put_fixed64(out, 1, quantile.to_bits());
                put_fixed64(out, 2, number(part).to_bits());
            }
        } else {
            put_tag(out, 6, BYTES);
            put_varint(out, 8 * rest.len() as u64);
            let mut below = 0;
            for part in rest {
                let all = number(part) as u64;
                out.extend_from_slice(&(all - below).to_le_bytes());
                below = all;
            }
            if rest.len() > 1 {
                put_tag(out, 7, BYTES);
                put_varint(out, 8 * (rest.len() as u64 - 1));
                for part in &rest[..rest.len() - 1] {
                    let Role::Bucket(bound) = part.role else { continue };
                    out.extend_from_slice(&bound.to_bits().to_le_bytes());
                }
            }
        }
        if ended {
            put_tag(out, flags, VARINT);
            put_varint(out, u64::from(FLAG_NO_RECORDED_VALUE));
        }
        let mut exemplars = 0;
        if form == Form::Histogram {
            for part in parts {
                let is_last = self.is_last_sample(part.series, part.sample);
                exemplars += self.put_exemplars(out, 8, part.series, is_last, time_ms);
            }
        }
        exemplars
    }

    /// Writes the exemplars of a series behind its last sample, and says how many.
    fn put_exemplars(&self, out: &mut Vec<u8>, number: u32, series: u32, is_last: bool, time_ms: i64) -> u64 {
        let mut count = 0;
        for exemplar in self.exemplars(series, is_last) {
            count += 1;
            put_tag(out, number, BYTES);
            let open = open_length(out, 100);
            let time = nanos(exemplar.time_ms.unwrap_or(time_ms)).unwrap_or_default();
            put_fixed64(out, 2, time);
            put_fixed64(out, 3, exemplar.value.to_bits());
            for (name, value) in self.list.pairs(exemplar.labels) {
                match name {
                    "trace_id" => match id(value, TraceId::from_hex(value).ok().map(|id| id.0)) {
                        Some(id) => put_bytes(out, 5, &id),
                        None => put_attribute(out, 7, name, value),
                    },
                    "span_id" => match id(value, SpanId::from_hex(value).ok().map(|id| id.0)) {
                        Some(id) => put_bytes(out, 4, &id),
                        None => put_attribute(out, 7, name, value),
                    },
                    _ => put_attribute(out, 7, name, value),
                }
            }
            close_length(out, open);
        }
        count
    }
}

/// A guess at how long a list of points is, which saves moving it when it is right to within the length of a varint.
const EXPECTED_BYTES: usize = 1 << 15;

const SCHEMA_URL: &str = "schema_url";

fn put_scope(out: &mut Vec<u8>, labels: &[(&str, &str)]) {
    put_tag(out, 1, BYTES);
    let open = open_length(out, 64);
    for (name, value) in labels {
        match *name {
            "name" => put_bytes(out, 1, value.as_bytes()),
            "version" => put_bytes(out, 2, value.as_bytes()),
            SCHEMA_URL => {}
            name => put_attribute(out, 3, name, value),
        }
    }
    close_length(out, open);
}

/// The type that an exporter reads from a kind of points.
fn natural(form: Form) -> Kind {
    match form {
        Form::Gauge | Form::UpDown => Kind::Gauge,
        Form::Sum => Kind::Counter,
        Form::Histogram | Form::Exponential => Kind::Histogram,
        Form::Summary => Kind::Summary,
    }
}

fn put_times(out: &mut Vec<u8>, start_ms: i64, time_ms: i64) {
    for (number, time_ms) in [(2, start_ms), (3, time_ms)] {
        if let Some(time @ 1..) = nanos(time_ms) {
            put_fixed64(out, number, time);
        }
    }
}

/// An id that is written back as it was read, and is one.
fn id<const N: usize>(text: &str, id: Option<[u8; N]>) -> Option<[u8; N]> {
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    id.filter(|id| is_lower && *id != [0; N])
}

fn put_attribute(out: &mut Vec<u8>, number: u32, key: &str, value: &str) {
    let delimited = |len: usize| 1 + varint_len(len as u64) + len;
    put_tag(out, number, BYTES);
    put_varint(out, (delimited(key.len()) + delimited(delimited(value.len()))) as u64);
    put_bytes(out, 1, key.as_bytes());
    put_tag(out, 2, BYTES);
    put_varint(out, delimited(value.len()) as u64);
    put_bytes(out, 1, value.as_bytes());
}
