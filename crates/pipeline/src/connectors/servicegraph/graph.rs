//! Why: the counting of edges, their points, and what is remembered of them.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use model::view::metrics::Number;
use model::view::traces::{Span, resource_spans};
use model::view::{AnyValue, Attributes};
use model::wire::{self, Fields, put_bytes, put_fixed64, put_tag};
use model::write::{self, Metrics, NumberPoint, ScopeWriter, Temporality};
use model::{Batch, Meta, SpanId};

use super::Config;
use super::edges::{Connection, Edges, Half, Key, Offered, Side};
use crate::connectors::StreamClock;
use crate::connectors::histogram::{Histogram, Shape, bounds};
use crate::connectors::series::{
    DEFAULT_MAX_SERIES, Held, ROW_BYTES, RememberedRow, Row, Table, Telling, cut, put_number, put_overflow, put_row,
};
use crate::stage::BadState;

/// A series without a request for this long is forgotten, as in the collector.
const STALE_NANOS: u64 = 15 * 60 * 1_000_000_000;

/// Links of a consumer's span that are followed: batches of messages have many, and each is an edge.
const MAX_LINKS: usize = 128;

/// Series of one batch, so that no request becomes larger than backends take.
const MAX_ROWS: usize = 2_000;

/// The scope of all points; the collector's name for it.
const SCOPE: &str = "traces_service_graph";

const NS_PER_S: f64 = 1e9;

/// The caller of a root, and the called one of which nothing is known, as in the collector.
const USER: &str = "user";
const UNKNOWN: &str = "unknown";

#[derive(Debug)]
pub struct Settings {
    pub component: Arc<str>,
    pub flush_nanos: u64,
    shape: Shape,
    offset_nanos: u64,
    ttl_nanos: u64,
    max_items: usize,
    /// Attributes with the names that they have as labels of the client and of the server.
    dimensions: Vec<(String, String, String)>,
    peers: Vec<String>,
    databases: Vec<String>,
    has_virtual_label: bool,
    sweep_nanos: u64,
    max_series: usize,
}

impl Settings {
    pub fn new(config: &Config, component: &str) -> Settings {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let dimension = |name: &String| (name.clone(), format!("client_{name}"), format!("server_{name}"));
        let databases = match (&config.database_name_attribute, &config.database_name_attributes[..]) {
            (Some(one), []) => vec![one.clone()],
            (None, []) => texts(&["db.name", "db.namespace"]),
            (_, several) => several.to_vec(),
        };
        Settings {
            component: component.into(),
            flush_nanos: nanos(config.metrics_flush_interval),
            shape: match config.exponential_histogram_max_size {
                0 => Shape::Explicit(bounds(config.latency_histogram_buckets.as_deref(), NS_PER_S)),
                max_size => Shape::Exponential { max_size },
            },
            offset_nanos: nanos(config.metrics_timestamp_offset),
            ttl_nanos: nanos(config.store.ttl),
            max_items: config.store.max_items,
            dimensions: config.dimensions.iter().map(dimension).collect(),
            peers: match &config.virtual_node_peer_attributes {
                Some(peers) => peers.clone(),
                None => texts(&["peer.service", "db.name", "db.system", "db.system.name"]),
            },
            databases,
            has_virtual_label: config.virtual_node_extra_label,
            sweep_nanos: nanos(config.cache_loop).max(1),
            max_series: match config.aggregation_cardinality_limit {
                0 => DEFAULT_MAX_SERIES,
                limit => limit,
            },
        }
    }

    /// All that the remembered series depend on.
    fn fingerprint(&self) -> String {
        let (shape, dimensions, label) = (&self.shape, &self.dimensions, self.has_virtual_label);
        format!("{shape:?} {dimensions:?} {label}")
    }
}

/// What a series counts.
#[derive(Debug, Clone, Default)]
struct Value {
    count: u64,
    failed: u64,
    /// As seen from the client, and from the server. None in what counts spans.
    took: Option<Box<[Histogram; 2]>>,
}

/// The tables of series, by what they count.
const REQUESTS: usize = 0;
const UNPAIRED: usize = 1;
const DROPPED: usize = 2;

pub struct ServiceGraph {
    pub settings: Arc<Settings>,
    pub held: Held,
    pub telling: Telling,
    /// Whether something was counted since the last flush.
    pub is_dirty: bool,
    pub clock: StreamClock,
    /// The time that was gone on to last.
    advanced_unix_nano: u64,
    next_flush_unix_nano: u64,
    next_sweep_unix_nano: u64,
    edges: Edges,
    tables: [Table<Value>; 3],
    key: Vec<u8>,
}

impl ServiceGraph {
    pub fn new(settings: Arc<Settings>) -> ServiceGraph {
        ServiceGraph {
            settings,
            held: Held::default(),
            telling: Telling::default(),
            is_dirty: false,
            clock: StreamClock::default(),
            advanced_unix_nano: 0,
            next_flush_unix_nano: 0,
            next_sweep_unix_nano: 0,
            edges: Edges::default(),
            tables: Default::default(),
            key: Vec::new(),
        }
    }

    /// Begins anew.
    pub fn forget(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        held.shrink(0);
        *self = ServiceGraph {
            held,
            ..ServiceGraph::new(Arc::clone(&self.settings))
        };
    }

    /// Goes on to this time: ends what has waited long enough, and gives out what is due.
    pub fn advance(&mut self, now: u64, out: &mut Vec<Batch>) {
        let before = std::mem::replace(&mut self.advanced_unix_nano, now);
        if now < before {
            self.edges
                .wait_no_longer_than(now.saturating_add(self.settings.ttl_nanos));
            self.next_flush_unix_nano = self.next_flush_unix_nano.min(now);
            self.next_sweep_unix_nano = self.next_sweep_unix_nano.min(now);
        }
        while let Some(half) = self.edges.expired(now, &mut self.held) {
            self.alone(&half, now);
        }
        if self.next_sweep_unix_nano <= now {
            self.sweep(now);
            self.next_sweep_unix_nano = now.saturating_add(self.settings.sweep_nanos);
        }
        match self.next_flush_unix_nano {
            0 => self.next_flush_unix_nano = now.saturating_add(self.settings.flush_nanos),
            next if next <= now && self.settings.flush_nanos > 0 => self.flush(now, out),
            _ => {}
        }
    }

    /// Forgets series without requests.
    fn sweep(&mut self, now: u64) {
        let mut has_moved = false;
        for table in &mut self.tables {
            has_moved |= table.retain(|row| now.saturating_sub(row.touched_unix_nano) <= STALE_NANOS);
        }
        if has_moved {
            self.telling.has_moved = true;
            let settings = &self.settings;
            let rows = self.tables.iter().flat_map(|table| table.rows());
            let series: usize = rows
                .map(|row| series_bytes(settings, &row.key, row.value.took.is_some()))
                .sum();
            self.held.shrink(series + self.edges.held_bytes());
        }
    }

    pub fn take_spans(&mut self, payload: &[u8], now: u64) {
        for group in resource_spans(payload) {
            let resource = group.owner();
            // A node of the graph has a name.
            let Some(service) = resource.service_name().filter(|name| !name.is_empty()) else {
                continue;
            };
            let mut name: Option<Arc<str>> = None;
            for span in group.list().iter().flat_map(|scope| scope.list().iter()) {
                let (side, connection) = match span.kind {
                    2 => (Side::Server, Connection::Direct),
                    3 => (Side::Client, Connection::Direct),
                    4 => (Side::Client, Connection::Messaging),
                    5 => (Side::Server, Connection::Messaging),
                    _ => continue,
                };
                let name = name.get_or_insert_with(|| cut(service).into());
                let half = self.half(&span, &resource.attributes, name, side, connection, now);
                self.take_half(&span, &resource.attributes, half, now);
            }
        }
    }

    fn half(
        &self,
        span: &Span<'_>,
        resource: &Attributes<'_>,
        service: &Arc<str>,
        side: Side,
        connection: Connection,
        now: u64,
    ) -> Half {
        let mut dimensions = Vec::new();
        for (name, of_client, of_server) in &self.settings.dimensions {
            if let Some(value) = first(&[name], &[resource, &span.attributes]) {
                let label = if side == Side::Client { of_client } else { of_server };
                write::Attributes::new(&mut dimensions, 7).text(label, cut(&value));
            }
        }
        let took_nanos = span.end_unix_nano.saturating_sub(span.start_unix_nano);
        let peer = match side {
            Side::Client => first(&self.settings.peers, &[&span.attributes]),
            Side::Server => None,
        };
        Half {
            side,
            service: Arc::clone(service),
            took_s: took_nanos as f64 / NS_PER_S,
            has_failed: span.status_code == 2,
            connection,
            peer: peer.map(|peer| cut(&peer).into()),
            dimensions: dimensions.into(),
            expires_unix_nano: now.saturating_add(self.settings.ttl_nanos),
            is_paired: false,
            is_told: false,
        }
    }

    fn take_half(&mut self, span: &Span<'_>, resource: &Attributes<'_>, half: Half, now: u64) {
        match half.side {
            Side::Client => match first(&self.settings.databases, &[resource, &span.attributes]) {
                // A database sends no spans: what the client saw is all that there is.
                Some(database) => {
                    let edge = Edge {
                        client: &half.service,
                        server: cut(&database),
                        connection: Connection::Database,
                        has_failed: half.has_failed,
                        client_took_s: Some(half.took_s),
                        server_took_s: Some(half.took_s),
                        dimensions: [&half.dimensions, &[]],
                        virtual_side: None,
                    };
                    self.count(&edge, now);
                }
                None => self.offer((span.trace_id, span.span_id), half, now),
            },
            Side::Server if half.connection == Connection::Messaging && !span.links.is_empty() => {
                for link in span.links.iter().take(MAX_LINKS) {
                    if let (Some(trace), Some(producer)) = (link.trace_id, link.span_id) {
                        self.offer((trace, producer), half.clone(), now);
                    }
                }
            }
            Side::Server => match span.parent_span_id {
                Some(parent) => self.offer((span.trace_id, parent), half, now),
                // Nobody called it who sends spans.
                None if self.settings.peers.is_empty() => self.count_alone(UNPAIRED, &half, now),
                None => self.count_virtual(&half, USER, now),
            },
        }
    }

    fn offer(&mut self, key: Key, half: Half, now: u64) {
        debug_assert_ne!(key.1, SpanId::default(), "a root is not offered");
        match self.edges.offer(key, half, self.settings.max_items, &mut self.held) {
            Offered::Waits => {}
            Offered::Pairs(client, server) => {
                let edge = Edge {
                    client: &client.service,
                    server: &server.service,
                    connection: server.connection,
                    has_failed: client.has_failed || server.has_failed,
                    client_took_s: Some(client.took_s),
                    server_took_s: Some(server.took_s),
                    dimensions: [&client.dimensions, &server.dimensions],
                    virtual_side: None,
                };
                self.count(&edge, now);
            }
            Offered::Again(half) => self.count_alone(UNPAIRED, &half, now),
            Offered::NoRoom(half) => self.count_alone(DROPPED, &half, now),
        }
    }

    /// Ends the wait of a half whose other did not come.
    fn alone(&mut self, half: &Half, now: u64) {
        match half.side {
            Side::Client if half.is_paired => {}
            Side::Client if !self.settings.peers.is_empty() => {
                self.count_virtual(half, half.peer.as_deref().unwrap_or(UNKNOWN), now);
            }
            _ => self.count_alone(UNPAIRED, half, now),
        }
    }

    /// Counts an edge to, or from, one that sends no spans.
    fn count_virtual(&mut self, half: &Half, other: &str, now: u64) {
        let is_client = half.side == Side::Client;
        let (client, server) = match is_client {
            true => (&*half.service, other),
            false => (other, &*half.service),
        };
        let edge = Edge {
            client,
            server,
            connection: Connection::Virtual,
            has_failed: half.has_failed,
            client_took_s: is_client.then_some(half.took_s),
            server_took_s: (!is_client).then_some(half.took_s),
            dimensions: [&half.dimensions, &[]],
            virtual_side: Some(if is_client { Side::Server } else { Side::Client }),
        };
        self.count(&edge, now);
    }

    fn count(&mut self, edge: &Edge<'_>, now: u64) {
        put_edge(&mut self.key, edge.client, edge.server, edge.connection);
        let mut attributes = write::Attributes::new(&mut self.key, 7);
        attributes.bool("failed", edge.has_failed);
        if self.settings.has_virtual_label {
            let side = match edge.virtual_side {
                Some(Side::Client) => "client",
                Some(Side::Server) => "server",
                None => "",
            };
            attributes.text("virtual_node", side);
        }
        for dimensions in edge.dimensions {
            attributes.copy(dimensions);
        }
        let settings = Arc::clone(&self.settings);
        let value = self.series(REQUESTS, now);
        value.count += 1;
        value.failed += u64::from(edge.has_failed);
        if let Some(histograms) = &mut value.took {
            for (histogram, took_s) in histograms.iter_mut().zip([edge.client_took_s, edge.server_took_s]) {
                if let Some(took_s) = took_s {
                    histogram.observe(&settings.shape, took_s);
                }
            }
        }
    }

    /// Counts a span that became no edge.
    fn count_alone(&mut self, table: usize, half: &Half, now: u64) {
        let (client, server) = match half.side {
            Side::Client => (&*half.service, ""),
            Side::Server => ("", &*half.service),
        };
        put_edge(&mut self.key, client, server, half.connection);
        self.series(table, now).count += 1;
    }

    /// The series of the key at hand, or the one for what is beyond the bounds.
    fn series(&mut self, table: usize, now: u64) -> &mut Value {
        self.is_dirty = true;
        let (settings, series) = (&self.settings, &mut self.tables[table]);
        let is_request = table == REQUESTS;
        let is_known = series.index(0, &self.key).is_some();
        let bytes = series_bytes(settings, &self.key, is_request);
        if !is_known && (series.len() >= settings.max_series || !self.held.grow(bytes)) {
            self.held.tell_of_overflow(&settings.component);
            put_overflow(&mut self.key);
        }
        let value = || Value {
            took: is_request.then(|| Box::new([Histogram::new(&settings.shape), Histogram::new(&settings.shape)])),
            ..Value::default()
        };
        &mut series.insert(0, &self.key, now, value).value
    }

    pub fn flush(&mut self, now: u64, out: &mut Vec<Batch>) {
        self.next_flush_unix_nano = now.saturating_add(self.settings.flush_nanos);
        self.is_dirty = false;
        let meta = Arc::new(Meta {
            received_at_unix_nano: now,
            receiver: Arc::clone(&self.settings.component),
            peer: None,
            headers: Vec::new(),
            source_offset: None,
        });
        let [requests, alone @ ..] = &self.tables;
        for rows in requests.rows().chunks(MAX_ROWS) {
            out.extend(self.request(&meta, |scope| self.write_requests(rows, now, scope)));
        }
        for (table, name) in alone.iter().zip(["unpaired_spans_total", "dropped_spans_total"]) {
            for rows in table.rows().chunks(MAX_ROWS) {
                let write = |scope: &mut ScopeWriter<'_>| self.write_sum(name, rows, now, scope, |value| value.count);
                out.extend(self.request(&meta, write));
            }
        }
    }

    fn request(&self, meta: &Arc<Meta>, write: impl FnOnce(&mut ScopeWriter<'_>)) -> Option<Batch> {
        let mut metrics = Metrics::default();
        metrics.resource(|_| {}, |resource| resource.scope(SCOPE, "", write));
        metrics.finish(Arc::clone(meta))
    }

    fn write_sum(
        &self,
        name: &str,
        rows: &[Row<Value>],
        now: u64,
        scope: &mut ScopeWriter<'_>,
        count: impl Fn(&Value) -> u64,
    ) {
        let name = format!("{SCOPE}_{name}");
        scope.sum(&name, "", Temporality::Cumulative, true, |points| {
            for row in rows.iter().filter(|row| count(&row.value) > 0) {
                let (start_unix_nano, time_unix_nano) = self.times(row, now);
                let point = NumberPoint {
                    start_unix_nano,
                    time_unix_nano,
                    value: Number::Int(count(&row.value) as i64),
                };
                points.number(&point, &[], |attributes| attributes.copy(&row.key));
            }
        });
    }

    fn write_requests(&self, rows: &[Row<Value>], now: u64, scope: &mut ScopeWriter<'_>) {
        self.write_sum("request_total", rows, now, scope, |value| value.count);
        self.write_sum("request_failed_total", rows, now, scope, |value| value.failed);
        for (at, name) in ["request_client", "request_server"].into_iter().enumerate() {
            let name = format!("{SCOPE}_{name}");
            let each = |points: &mut write::Points<'_>| {
                for row in rows {
                    let histogram = row.value.took.as_ref().map(|took| &took[at]);
                    if let Some(histogram) = histogram.filter(|histogram| histogram.count > 0) {
                        let (start, time) = self.times(row, now);
                        let attributes = |attributes: &mut write::Attributes<'_>| attributes.copy(&row.key);
                        histogram.write(points, &self.settings.shape, start, time, &[], attributes);
                    }
                }
            };
            match self.settings.shape {
                Shape::Explicit(_) => scope.histogram(&name, "s", Temporality::Cumulative, each),
                Shape::Exponential { .. } => {
                    scope.exponential_histogram(&name, "s", Temporality::Cumulative, each);
                }
            }
        }
    }

    fn times(&self, row: &Row<Value>, now: u64) -> (u64, u64) {
        let offset = self.settings.offset_nanos;
        (row.start_unix_nano.saturating_sub(offset), now.saturating_sub(offset))
    }
}

/// A request between two services.
struct Edge<'e> {
    client: &'e str,
    server: &'e str,
    connection: Connection,
    has_failed: bool,
    /// Where a span told it.
    client_took_s: Option<f64>,
    server_took_s: Option<f64>,
    dimensions: [&'e [u8]; 2],
    /// The side that sends no spans.
    virtual_side: Option<Side>,
}

fn put_edge(key: &mut Vec<u8>, client: &str, server: &str, connection: Connection) {
    key.clear();
    let mut attributes = write::Attributes::new(key, 7);
    attributes.text("client", client);
    attributes.text("server", server);
    attributes.text("connection_type", connection.as_str());
}

/// The first of these attributes that is in one of the lists, as text; lists, maps and bytes are none.
fn first<'a>(names: &[impl AsRef<str>], lists: &[&Attributes<'a>]) -> Option<Cow<'a, str>> {
    let find = |name: &str| lists.iter().find_map(|list| list.get(name));
    let value = names.iter().find_map(|name| find(name.as_ref()))?;
    let text: Cow<'a, str> = match value {
        AnyValue::Str(text) => text.into(),
        AnyValue::Int(number) => number.to_string().into(),
        AnyValue::Double(number) => number.to_string().into(),
        AnyValue::Bool(value) => value.to_string().into(),
        AnyValue::Empty | AnyValue::Bytes(_) | AnyValue::Array(_) | AnyValue::KvList(_) => return None,
    };
    (!text.is_empty()).then_some(text)
}

fn series_bytes(settings: &Settings, key: &[u8], is_request: bool) -> usize {
    let histograms = if is_request { 2 * settings.shape.held_bytes() } else { 0 };
    ROW_BYTES + key.len() + histograms
}

/// The version of the remembered state, its first byte; what follows are protobuf fields: 1 fingerprint, 2 clock, 3 next flush, 4 next sweep, 5 waiting halves,
/// 6 series.
const STATE_VERSION: u8 = 1;

impl ServiceGraph {
    pub fn encode(&mut self, is_whole: bool) -> Vec<u8> {
        let mut out = vec![STATE_VERSION];
        if is_whole {
            put_bytes(&mut out, 1, self.settings.fingerprint().as_bytes());
        }
        put_fixed64(&mut out, 2, self.clock.now_unix_nano);
        put_fixed64(&mut out, 3, self.next_flush_unix_nano);
        put_fixed64(&mut out, 4, self.next_sweep_unix_nano);
        self.edges.encode(&mut out, 5, is_whole);
        for (number, table) in self.tables.iter_mut().enumerate() {
            let mut changed = table.take_changed();
            if is_whole {
                changed = (0..table.len() as u32).collect();
            }
            changed.sort_unstable();
            for index in changed {
                if let Some(row) = table.get(index as usize) {
                    put_row(&mut out, 6, number, index, row, |out| row.value.encode(out));
                }
            }
        }
        out
    }

    pub fn read(&mut self, state: &[u8], is_whole: bool) -> Result<(), BadState> {
        let broken = || BadState("it is not what this connector remembers".into());
        let (version, fields) = state.split_first().ok_or_else(broken)?;
        if *version != STATE_VERSION {
            let text = format!("it is of version {version}, and this program reads version {STATE_VERSION}");
            return Err(BadState(text));
        }
        if is_whole {
            self.forget();
        }
        for (number, payload) in Fields::new(fields) {
            match number {
                1 if payload.bytes() != self.settings.fingerprint().as_bytes() => {
                    let text = "the dimensions, the histogram or other settings that its series depend on are not those of before";
                    return Err(BadState(text.into()));
                }
                1 => {}
                2 => {
                    self.clock = StreamClock::at(payload.fixed64());
                    self.advanced_unix_nano = self.clock.now_unix_nano;
                }
                3 => self.next_flush_unix_nano = payload.fixed64(),
                4 => self.next_sweep_unix_nano = payload.fixed64(),
                5 => self.edges.restore(payload.bytes(), &mut self.held).ok_or_else(broken)?,
                6 => self.read_series(payload.bytes()).ok_or_else(broken)?,
                _ => return Err(broken()),
            }
        }
        Ok(())
    }

    fn read_series(&mut self, bytes: &[u8]) -> Option<()> {
        let row = RememberedRow::read(bytes);
        let is_request = row.table == REQUESTS;
        let table = self.tables.get_mut(row.table)?;
        let value = Value::decode(bytes, &self.settings.shape, is_request)?;
        let is_known = row.index < table.len();
        let held = series_bytes(&self.settings, row.key, is_request);
        table.restore(row.index, row.with(value)).then_some(())?;
        self.held.charge(if is_known { 0 } else { held });
        self.is_dirty = true;
        Some(())
    }
}

impl Value {
    /// Appends 7 count, 8 failed, 9 the client's histogram, 10 the server's.
    fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, 7, self.count);
        put_number(out, 8, self.failed);
        for (number, histogram) in self.took.iter().flat_map(|took| (9..).zip(took.iter())) {
            put_tag(out, number, wire::BYTES);
            let open = wire::open_length(out, 64);
            histogram.encode(out);
            wire::close_length(out, open);
        }
    }

    fn decode(row: &[u8], shape: &Shape, is_request: bool) -> Option<Value> {
        let mut value = Value::default();
        let mut histograms = [None, None];
        for (number, payload) in Fields::new(row) {
            match number {
                7 => value.count = payload.varint(),
                8 => value.failed = payload.varint(),
                9 | 10 => histograms[number as usize - 9] = Some(Histogram::decode(payload.bytes(), shape)?),
                _ => {}
            }
        }
        if is_request {
            let [client, server] = histograms;
            value.took = Some(Box::new([client?, server?]));
        }
        Some(value)
    }
}
