//! Why: what was counted becomes a request of metrics.

use std::sync::Arc;

use model::view::metrics::Number;
use model::write::{self, Exemplar, Metrics, NumberPoint, ScopeWriter, Temporality};
use model::{Batch, Meta};

use super::SpanMetrics;
use super::counting::Value;
use super::settings::TableSettings;
use crate::connectors::histogram::Shape;
use crate::connectors::series::Row;

/// Points of one batch, so that no request becomes larger than backends take.
pub const MAX_POINTS: u32 = 4_000;

/// The scope of all points; the collector's name for it, which dashboards may select.
const SCOPE: &str = "spanmetricsconnector";

impl SpanMetrics {
    /// Writes all series, ordered by their resources.
    pub fn write(&self, now: u64, out: &mut Vec<Batch>) {
        let meta = Arc::new(Meta {
            received_at_unix_nano: now,
            receiver: Arc::clone(&self.settings.component),
            peer: None,
            headers: Vec::new(),
            source_offset: None,
        });
        let mut ordered: Vec<Vec<&Row<Value>>> = Vec::new();
        for tally in &self.tallies {
            let mut rows: Vec<_> = tally.series.rows().iter().collect();
            rows.sort_by_key(|row| row.owner);
            ordered.push(rows);
        }
        let mut rest: Vec<&[&Row<Value>]> = ordered.iter().map(Vec::as_slice).collect();
        let mut metrics = Metrics::default();
        while let Some(owner) = rest.iter().filter_map(|rows| rows.first()).map(|row| row.owner).min() {
            let resource = self.resources.get(owner as usize);
            let attributes = resource.map_or(&[][..], |row| match row.value.is_empty() {
                true => &row.key,
                false => &row.value,
            });
            let shares: Vec<&[&Row<Value>]> = rest.iter_mut().map(|rows| share_of(owner, rows)).collect();
            metrics.resource(
                |writer| {
                    if self.settings.has_resource_attributes {
                        writer.copy(attributes);
                    }
                },
                |writer| {
                    writer.scope(SCOPE, "", |scope| {
                        for (table, rows) in self.settings.tables.iter().zip(&shares) {
                            self.write_table(table, rows, now, scope);
                        }
                    });
                },
            );
            if metrics.points() >= MAX_POINTS {
                out.extend(std::mem::take(&mut metrics).finish(Arc::clone(&meta)));
            }
        }
        out.extend(metrics.finish(meta));
    }

    fn write_table(&self, table: &TableSettings, rows: &[&Row<Value>], now: u64, scope: &mut ScopeWriter<'_>) {
        let settings = &self.settings;
        let start = |row: &Row<Value>| match settings.temporality {
            Temporality::Delta if self.last_flush_unix_nano > 0 => self.last_flush_unix_nano,
            _ => row.start_unix_nano,
        };
        let exemplars =
            |row: &Row<Value>| -> Vec<Exemplar> { row.value.exemplars.iter().map(|(_, exemplar)| *exemplar).collect() };
        if let Some(name) = &table.counted {
            scope.sum(name, "", settings.temporality, true, |points| {
                for row in rows {
                    let point = NumberPoint {
                        start_unix_nano: start(row),
                        time_unix_nano: now,
                        value: Number::Int(row.value.count as i64),
                    };
                    points.number(&point, &exemplars(row), |attributes| attributes.copy(&row.key));
                }
            });
        }
        let Some(name) = &table.measured else { return };
        let each = |points: &mut write::Points<'_>| {
            for row in rows {
                if let Some(histogram) = &row.value.histogram {
                    let attributes = |attributes: &mut write::Attributes<'_>| attributes.copy(&row.key);
                    histogram.write(points, &settings.shape, start(row), now, &exemplars(row), attributes);
                }
            }
        };
        match settings.shape {
            Shape::Explicit(_) => scope.histogram(name, settings.unit, settings.temporality, each),
            Shape::Exponential { .. } => {
                scope.exponential_histogram(name, settings.unit, settings.temporality, each);
            }
        }
    }
}

/// Takes the rows of this owner off the front, as many as a batch has points.
fn share_of<'r, V>(owner: u32, rows: &mut &'r [&'r Row<V>]) -> &'r [&'r Row<V>] {
    let own = rows
        .iter()
        .take(MAX_POINTS as usize)
        .take_while(|row| row.owner == owner);
    let (share, rest) = rows.split_at(own.count());
    *rows = rest;
    share
}
