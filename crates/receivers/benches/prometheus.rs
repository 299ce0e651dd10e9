//! What a scrape takes as remote write and as OTLP, in bytes a sample, and how long the way from one to the other takes; what a whole scrape of 10,000 series
//! costs, and what a target's series take until its next scrape.
//!
//! `cargo bench -p receivers --bench prometheus`; `TRACKLINE_PAGE=FILE` takes a page in text instead of one like our metrics catalogue.

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use codec::prometheus::exposition::read;
use codec::prometheus::labels;
use codec::prometheus::naming::Strategy;
use codec::prometheus::otlp::{self, Job, TargetInfo};
use codec::prometheus::protobuf::{self, Wanted};
use codec::prometheus::series::SeriesList;
use codec::prometheus::text::Format;
use codec::remote_write::read::{Families, first_version, second_version};
use codec::remote_write::{Encoder, Options, Version};
use model::wire::{self, Fields};

const NOW_MS: i64 = 1_700_000_000_123;
/// Into so many requests the series are dealt out where histograms are to be cut.
const CUTS: usize = 7;
/// Time that each step is repeated for.
const MEASURE: Duration = Duration::from_millis(500);

/// Counters and histograms of forty endpoints, some of which are hardly ever called.
fn catalogue() -> String {
    let mut page = String::new();
    let mut random = fastrand::Rng::with_seed(7);
    page.push_str("# HELP request_count_total Requests.\n# TYPE request_count_total counter\n");
    for endpoint in 0..40 {
        for status in [200, 400, 404, 500] {
            let bits = random.u32(1..30);
            let value = random.u64(..1 << bits);
            let _ = writeln!(
                page,
                "request_count_total{{endpoint=\"/api/v1/things/{endpoint}\",method=\"GET\",status_code=\"{status}\",api_version=\"v1\"}} {value}"
            );
        }
    }
    page.push_str("# HELP request_duration_seconds Duration of requests.\n# TYPE request_duration_seconds histogram\n");
    for endpoint in 0..40 {
        let labels = format!("endpoint=\"/api/v1/things/{endpoint}\",method=\"GET\"");
        let mut count = 0;
        for bound in [
            ".005", ".01", ".025", ".05", ".1", ".25", ".5", "1", "2", "2.5", "5", "10", "+Inf",
        ] {
            let bits = random.u32(1..20);
            count += random.u64(..1 << bits);
            let _ = writeln!(
                page,
                "request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {count}"
            );
        }
        let sum = random.f64() * count as f64;
        let _ = writeln!(page, "request_duration_seconds_sum{{{labels}}} {sum}");
        let _ = writeln!(page, "request_duration_seconds_count{{{labels}}} {count}");
    }
    page.push_str("# HELP active_workflows Workflows.\n# TYPE active_workflows gauge\n");
    for status in 0..200 {
        let _ = writeln!(page, "active_workflows{{status=\"s{status}\"}} {}", random.u32(..50));
    }
    page
}

fn main() {
    let page = match std::env::var_os("TRACKLINE_PAGE") {
        Some(file) => std::fs::read_to_string(file).expect("a page"),
        None => catalogue(),
    };
    let options = otlp::Options {
        time_ms: NOW_MS,
        job: Job::Parted,
        target_info: TargetInfo::Kept,
        max_bytes: 1 << 30,
    };
    let mut list = read(page.as_bytes(), Format::Text).expect("a page");
    // What a scraper adds.
    list.relabel(|labels| {
        for (name, value) in [
            ("job", "shop/checkout"),
            ("instance", "10.0.12.34:8080"),
            ("environment", "production"),
            ("project", "trackline"),
        ] {
            labels.set(name, value);
        }
        true
    })
    .expect("labels");
    let payload = otlp::build(&list, &options).expect("OTLP").payload;
    let encode = |version, payload: &[u8]| {
        let options = Options {
            version,
            labels: labels::Options {
                strategy: Strategy::NoTranslation,
                scope: true,
                ..labels::Options::default()
            },
            metadata: version == Version::V2,
            ..Options::default()
        };
        let mut requests = Encoder::new(options).encode(payload).requests;
        assert_eq!(requests.len(), 1);
        requests.remove(0)
    };
    let (first, second) = (encode(Version::V1, &payload), encode(Version::V2, &payload));
    let samples = first.samples as f64;
    println!("{samples} samples");
    println!("bytes a sample          plain  snappy  zstd 1");
    let per_sample = |name: &str, bytes: &[u8]| {
        let snappy = snap::raw::Encoder::new().compress_vec(bytes).expect("snappy").len();
        let zstd = zstd::bulk::compress(bytes, 1).expect("zstd").len();
        let [plain, snappy, zstd] = [bytes.len(), snappy, zstd].map(|bytes| bytes as f64 / samples);
        println!("{name:22} {plain:6.1}  {snappy:6.1}  {zstd:6.1}");
    };
    per_sample("page", page.as_bytes());
    per_sample("remote write 1.0", &first.bytes);
    per_sample("remote write 2.0", &second.bytes);
    per_sample("OTLP", &payload);
    per_sample("OTLP, histograms cut", &series_by_series(&second.bytes, &options));
    let reckoned = otlp::len_at_most(&second_version(&second.bytes).expect("a request").list);
    println!("OTLP, reckoned before  {:6.1}", reckoned as f64 / samples);

    let measure = |name: &str, work: &dyn Fn()| {
        let (start, mut rounds) = (Instant::now(), 0u32);
        while start.elapsed() < MEASURE {
            work();
            rounds += 1;
        }
        println!(
            "{name:34} {:7.0} ns a sample",
            start.elapsed().as_nanos() as f64 / f64::from(rounds) / samples
        );
    };
    measure("page: read", &|| drop(black_box(read(page.as_bytes(), Format::Text))));
    measure("series: to OTLP", &|| drop(black_box(otlp::build(&list, &options))));
    let families = Families::default();
    measure("remote write 1.0: read", &|| {
        drop(black_box(first_version(&first.bytes, &families)))
    });
    measure("remote write 2.0: read", &|| {
        drop(black_box(second_version(&second.bytes)))
    });
    let canonical = || model::canonical::canonicalize(model::Signal::Metrics, payload.clone().into());
    measure("OTLP: prove canonical", &|| drop(black_box(canonical())));
    measure("OTLP: to remote write 2.0", &|| {
        drop(black_box(encode(Version::V2, &payload)))
    });
    let text = |page: &[u8]| read(page, Format::Text).expect("a page");
    whole_scrape("text", &page_in_text(), &text, &options);
    let protobuf = |page: &[u8]| protobuf::read(page, Wanted::default()).expect("a page");
    whole_scrape("protobuf", &page_in_protobuf(), &protobuf, &options);
}

/// Series of the page of which a whole scrape is measured.
const SERIES: usize = 10_000;

/// The labels of a series of that page, as an application's counter has them.
fn labels_of(at: usize) -> [(&'static str, String); 4] {
    [
        ("endpoint", format!("/api/v1/things/{}", at / 40)),
        ("method", ["GET", "POST", "PUT", "DELETE"][at % 4].to_owned()),
        (
            "status_code",
            [200, 201, 400, 404, 429, 500, 502, 503, 504, 301][at / 4 % 10].to_string(),
        ),
        ("api_version", "v1".to_owned()),
    ]
}

fn page_in_text() -> Vec<u8> {
    let mut page = "# HELP request_count_total Requests.\n# TYPE request_count_total counter\n".to_owned();
    for at in 0..SERIES {
        let labels: Vec<String> = labels_of(at)
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        let _ = writeln!(page, "request_count_total{{{}}} {}", labels.join(","), at * 37);
    }
    page.into_bytes()
}

fn page_in_protobuf() -> Vec<u8> {
    let mut family = Vec::new();
    wire::put_bytes(&mut family, 1, b"request_count_total");
    wire::put_bytes(&mut family, 2, b"Requests.");
    for at in 0..SERIES {
        let mut metric = Vec::new();
        for (name, value) in labels_of(at) {
            let mut pair = Vec::new();
            wire::put_bytes(&mut pair, 1, name.as_bytes());
            wire::put_bytes(&mut pair, 2, value.as_bytes());
            wire::put_bytes(&mut metric, 1, &pair);
        }
        let mut counter = Vec::new();
        wire::put_fixed64(&mut counter, 1, ((at * 37) as f64).to_bits());
        wire::put_bytes(&mut metric, 3, &counter);
        wire::put_bytes(&mut family, 4, &metric);
    }
    let mut page = Vec::new();
    wire::put_varint(&mut page, family.len() as u64);
    page.extend(family);
    page
}

/// All that a scrape does with a page but the fetching: reading, the target's labels, what has ended, OTLP, what is held for the next time.
fn whole_scrape(name: &str, page: &[u8], read: &dyn Fn(&[u8]) -> SeriesList, options: &otlp::Options) {
    let scrape = |before: &SeriesList| {
        let mut list = read(page);
        list.relabel(|labels| {
            labels.set("job", "shop/checkout");
            labels.set("instance", "10.0.12.34:8080");
            true
        })
        .expect("labels");
        assert_eq!(list.end_missing(before), Ok(0));
        black_box(otlp::build(&list, options).expect("OTLP"));
        list.forget_samples();
        list
    };
    let mut before = scrape(&SeriesList::new());
    let (start, mut rounds) = (Instant::now(), 0u32);
    while start.elapsed() < MEASURE {
        before = scrape(&before);
        rounds += 1;
    }
    let took = start.elapsed() / rounds;
    println!(
        "a scrape of {SERIES} series in {name}: {:.1} MB, {:.1} ms, {:.0} ns a series; held until the next {:.0} bytes a series",
        page.len() as f64 / 1e6,
        took.as_secs_f64() * 1e3,
        took.as_nanos() as f64 / SERIES as f64,
        before.bytes_held() as f64 / SERIES as f64,
    );
}

/// OTLP of requests in which the series of a histogram are far from each other, which is the worst that a sender can do.
fn series_by_series(request: &[u8], options: &otlp::Options) -> Vec<u8> {
    let mut symbols = Vec::new();
    let mut series = Vec::new();
    for (number, field) in Fields::new(request) {
        let list = if number == 4 { &mut symbols } else { &mut series };
        list.push(field.bytes());
    }
    let mut all = Vec::new();
    for at in 0..CUTS {
        let mut part = Vec::new();
        symbols.iter().for_each(|symbol| wire::put_bytes(&mut part, 4, symbol));
        series
            .iter()
            .skip(at)
            .step_by(CUTS)
            .for_each(|series| wire::put_bytes(&mut part, 5, series));
        let read = second_version(&part).expect("a request");
        all.extend(otlp::build(&read.list, options).expect("OTLP").payload);
    }
    all
}
