//! Why: series stand in any order, and OTLP wants each resource, scope and metric once. Here each sample finds the point that it is, or is a part of.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::{
    Builder, EMPTY, Form, Metric, NONE, Point, Resource, Scope, TARGET_INFO, TargetInfo, What, nanos, scope_label,
};
use crate::prometheus::Kind;
use crate::prometheus::series::{NativeForm, Series, SeriesRef, is_stale};

impl<'a> Builder<'a> {
    /// Finds out where each sample belongs.
    pub(super) fn collect(&mut self) {
        let list = self.list;
        for at in 0..list.series.len() as u32 {
            let series = self.series(at);
            let scope = self.scope(at);
            self.scope_of.push(scope);
            let name = SeriesRef { list, series }.name();
            if name == TARGET_INFO && !series.samples.is_empty() {
                let resource = self.scopes[scope as usize].resource;
                // One that has ended tells of the resource only while no other does.
                let has_ended = series
                    .samples
                    .of(&list.samples)
                    .iter()
                    .all(|sample| is_stale(sample.value));
                let target = &mut self.resources[resource as usize].target;
                if target.is_none() || !has_ended {
                    *target = Some(SeriesRef { list, series });
                }
                if self.options.target_info == TargetInfo::Moved {
                    self.built.samples += series.samples.of(&list.samples).len() as u64;
                    continue;
                }
            }
            let kind = list.families[series.family as usize].kind;
            for native in series.natives.start..series.natives.end {
                let form = match list.natives[native as usize].form {
                    NativeForm::Exponential => Form::Exponential,
                    NativeForm::Explicit => Form::Histogram,
                };
                let time_ms = list.natives[native as usize].time_ms;
                if nanos(time_ms.unwrap_or(self.options.time_ms)).is_none() {
                    self.built.bad_times += 1;
                    continue;
                }
                self.built.histograms += 1;
                self.point(scope, form, name, series.family, What::Native { series: at, native });
            }
            let role = self.role(at, kind, name);
            for sample in series.samples.start..series.samples.end {
                let Some(time_ms) = self.time(&list.samples[sample as usize]) else {
                    self.built.bad_times += 1;
                    continue;
                };
                self.built.samples += 1;
                match role {
                    Some((base, role)) => self.part(scope, series.family, base, time_ms, at, sample, role),
                    None => self.number(at, sample, name, kind),
                }
            }
        }
        self.adopt();
    }

    /// A sample that is a point of its own.
    pub(super) fn number(&mut self, series: u32, sample: u32, name: &'a str, kind: Kind) {
        let form = match kind {
            Kind::Counter => Form::Sum,
            Kind::Gauge | Kind::Unknown | Kind::GaugeHistogram => Form::Gauge,
            Kind::Info | Kind::StateSet => Form::UpDown,
            Kind::Histogram | Kind::Summary => {
                let counts = ["_bucket", "_count", "_sum"]
                    .iter()
                    .any(|suffix| name.ends_with(suffix));
                if counts { Form::Sum } else { Form::Gauge }
            }
        };
        let scope = self.scope_of[series as usize];
        let family = self.series(series).family;
        self.point(scope, form, name, family, What::Number { series, sample });
    }

    /// The scope of a series; the resource of a scope comes with it.
    pub(super) fn scope(&mut self, series: u32) -> u32 {
        let (mut job, mut instance) = ("", "");
        let mut labels = Vec::new();
        for (name, value) in self.labels(series) {
            match name {
                "job" => job = value,
                "instance" => instance = value,
                _ => labels.extend(scope_label(name).map(|name| (name, value))),
            }
        }
        let resource = self.resource(job, instance);
        let Builder {
            scopes,
            by_scope,
            hasher,
            ..
        } = self;
        let hash = |scope: &Scope<'_>| hasher.hash_one((scope.resource, &scope.labels));
        let wanted = Scope {
            resource,
            labels,
            metrics: Vec::new(),
        };
        let is_it = |at: &u32| {
            let known = &scopes[*at as usize];
            known.resource == wanted.resource && known.labels == wanted.labels
        };
        if let Some(known) = by_scope.find(hash(&wanted), is_it) {
            return *known;
        }
        let number = scopes.len() as u32;
        let hashed = hash(&wanted);
        scopes.push(wanted);
        by_scope.insert_unique(hashed, number, |at| hash(&scopes[*at as usize]));
        self.resources[resource as usize].scopes.push(number);
        number
    }

    pub(super) fn resource(&mut self, job: &'a str, instance: &'a str) -> u32 {
        let Builder {
            resources,
            by_identity,
            hasher,
            ..
        } = self;
        let is_it = |at: &u32| {
            let known = &resources[*at as usize];
            known.job == job && known.instance == instance
        };
        let hash = hasher.hash_one((job, instance));
        if let Some(known) = by_identity.find(hash, is_it) {
            return *known;
        }
        let number = resources.len() as u32;
        resources.push(Resource {
            job,
            instance,
            target: None,
            scopes: Vec::new(),
        });
        by_identity.insert_unique(hash, number, |at| {
            let known = &resources[*at as usize];
            hasher.hash_one((known.job, known.instance))
        });
        number
    }

    /// Adds a point to the metric that it belongs to.
    pub(super) fn point(&mut self, scope: u32, form: Form, name: &'a str, family: u32, what: What) {
        let Builder {
            metrics,
            by_metric,
            hasher,
            scopes,
            points,
            ..
        } = self;
        let is_it = |at: &u32| {
            let known = &metrics[*at as usize];
            known.scope == scope && known.form == form && known.family == family && known.name == name
        };
        let last = metrics.len().wrapping_sub(1) as u32;
        let metric = if !metrics.is_empty() && is_it(&last) {
            last
        } else {
            let hash = |metric: &Metric<'_>| hasher.hash_one((metric.scope, metric.form, metric.family, metric.name));
            let wanted = Metric {
                scope,
                form,
                name,
                family,
                points: EMPTY,
            };
            let hashed = hash(&wanted);
            match by_metric.find(hashed, is_it) {
                Some(known) => *known,
                None => {
                    let number = metrics.len() as u32;
                    metrics.push(wanted);
                    by_metric.insert_unique(hashed, number, |at| hash(&metrics[*at as usize]));
                    scopes[scope as usize].metrics.push(number);
                    number
                }
            }
        };
        let number = points.len() as u32;
        points.push(Point { what, next: NONE });
        let chain = &mut metrics[metric as usize].points;
        match chain.last {
            NONE => chain.first = number,
            last => points[last as usize].next = number,
        }
        chain.last = number;
    }

    /// Finds a series for exemplars that came in one without samples.
    pub(super) fn adopt(&mut self) {
        let list = self.list;
        let of = |at: u32| {
            let series = &list.series[at as usize];
            SeriesRef { list, series }
        };
        let is_lone = |series: &Series| series.samples.is_empty() && series.natives.is_empty();
        let lone = |at: &u32| {
            let series = &list.series[*at as usize];
            is_lone(series) && !series.exemplars.is_empty()
        };
        let all = 0..list.series.len() as u32;
        if !all.clone().any(|at| lone(&at)) {
            return;
        }
        let hash = |at: u32| {
            let mut hash = 0u64;
            for pair in of(at).labels() {
                hash = hash.rotate_left(5) ^ self.hasher.hash_one(pair);
            }
            hash
        };
        let mut table: HashTable<u32> = HashTable::new();
        for at in all.clone().filter(|at| !is_lone(&list.series[*at as usize])) {
            let same = |known: &u32| of(*known).labels().eq(of(at).labels());
            match table.find_mut(hash(at), same) {
                // The newest gets them.
                Some(known) => *known = at,
                None => drop(table.insert_unique(hash(at), at, |at| hash(*at))),
            }
        }
        let mut adopted = Vec::new();
        for at in all.filter(lone) {
            match table.find(hash(at), |known| of(*known).labels().eq(of(at).labels())) {
                Some(owner) => adopted.push((*owner, at)),
                None => {
                    self.built.lone_exemplars += list.series[at as usize].exemplars.of(&list.exemplars).len() as u64
                }
            }
        }
        adopted.sort_unstable();
        self.adopted = adopted;
    }
}
