//! Scraping over real sockets: pages, their series, what becomes of them when they go, discovery, credentials, and targets that mean harm.

#[path = "support/protobuf.rs"]
mod protobuf;
#[path = "support/real_prometheus.rs"]
mod real_prometheus;
#[path = "support/site.rs"]
mod site;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pipeline::config::{Config, Source};
use pipeline::{Outcome, Reason};
use protobuf::{PROTOBUF, delimited, gaps, gauge, inner, one_native, shared_labels};
use real_prometheus::Real;
use receivers::prometheus;
use site::{PATIENCE, Reply, Site, Working};

const BUDGET_BYTES: u64 = 64 << 20;

fn settings(text: &str) -> prometheus::Config {
    let text: String = text.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!("receivers:\n  prometheus:\n{text}service: {{ pipelines: {{ metrics: {{}} }} }}\n");
    let config = Config::load(vec![Source::new("test", text)], &|_| None).unwrap_or_else(|error| panic!("{error}"));
    prometheus::Config::parse(&config.section(&config.receivers[0])).unwrap_or_else(|error| panic!("{error}"))
}

/// One job with more keys than the usual.
fn job(more: &str) -> prometheus::Config {
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    settings(&format!(
        "config:\n  global: {{ scrape_interval: 100ms, scrape_timeout: 100ms }}\n  scrape_configs:\n  - job_name: shop\n{more}"
    ))
}

fn start(settings: prometheus::Config) -> Working {
    Working::start("prometheus", settings, BUDGET_BYTES)
}

fn of(site: &Site) -> String {
    format!("static_configs: [ {{ targets: [ '{}' ] }} ]\n", site.address)
}

fn page(text: &str) -> Reply {
    Reply::Whole(
        200,
        "content-type: text/plain; version=0.0.4\r\n",
        text.as_bytes().to_vec(),
    )
}

fn has(lines: &[String], part: &str) -> bool {
    lines.iter().any(|line| line.contains(part))
}

/// Until a condition holds that no batch tells of.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}: it did not come");
        tokio::task::yield_now().await;
    }
}

const PAGE: &str = "\
# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{method=\"GET\",job=\"own\"} 7
requests_total{method=\"POST\"} 3
# TYPE latency_seconds histogram
latency_seconds_bucket{le=\"0.5\"} 1
latency_seconds_bucket{le=\"+Inf\"} 3
latency_seconds_sum 4.5
latency_seconds_count 3
# TYPE rpc_seconds summary
rpc_seconds{quantile=\"0.5\"} 2
rpc_seconds_sum 9
rpc_seconds_count 4
# TYPE temperature gauge
temperature 21.5
noise 1
target_info{version=\"1.2\"} 1
";

#[tokio::test]
async fn a_page_becomes_metrics_of_its_service() {
    let site = Site::start(|_| page(PAGE)).await;
    let mut running = start(job(&format!(
        "{}metric_relabel_configs:\n- {{ source_labels: [__name__], regex: noise, action: drop }}\n\
         - {{ source_labels: [method], regex: '(.).*', target_label: initial, replacement: $$1 }}\n",
        of(&site)
    )));
    let at = site.address;
    let lines = running.until("a scrape", |lines| has(lines, "up{")).await;
    let resource = lines
        .iter()
        .find(|line| line.contains("gauge up{"))
        .unwrap()
        .split('|')
        .next()
        .unwrap();
    for expect in ["service.name=shop", &format!("service.instance.id={at}"), "version=1.2"] {
        assert!(resource.split(',').any(|pair| pair == expect), "{expect} in {resource}");
    }
    for expect in [
        "counter requests_total{exported_job=own,initial=G,method=GET} 7",
        "counter requests_total{initial=P,method=POST} 3",
        "histogram latency_seconds{} 3 Some(4.5) [0.5] [1, 2]",
        "summary rpc_seconds{} 4 9 [(0.5, 2.0)]",
        "gauge temperature{} 21.5",
        "gauge up{} 1",
        "gauge scrape_samples_scraped{} 12",
        "gauge scrape_samples_post_metric_relabeling{} 11",
        "gauge scrape_series_added{} 11",
    ] {
        assert!(has(&lines, expect), "{expect} in {lines:#?}");
    }
    assert!(!has(&lines, "noise"));
    running
        .until("the second scrape, in which nothing is new", |lines| {
            has(lines, "scrape_series_added{} 0")
        })
        .await;
    let seen = site.seen.lock().unwrap()[0].clone();
    assert_eq!(seen.path(), "/metrics");
    assert!(
        seen.header("accept")
            .unwrap()
            .starts_with("application/openmetrics-text;version=1.0.0")
    );
    assert_eq!(seen.header("accept-encoding"), Some("gzip"));
    assert_eq!(seen.header("x-prometheus-scrape-timeout-seconds"), Some("0.1"));
    assert_eq!(seen.header("host"), Some(at.to_string().as_str()));
    running.finish().await;
}

#[tokio::test]
async fn openmetrics_brings_exemplars_and_gzip_is_unpacked() {
    let text =
        "# TYPE hits counter\nhits_total 5 # {trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\"} 1 1700000000.0\n# EOF\n";
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
    let mut packed = vec![0; compressor.gzip_compress_bound(text.len())];
    let length = compressor.gzip_compress(text.as_bytes(), &mut packed).unwrap();
    packed.truncate(length);
    let site = Site::start(move |_| {
        let headers =
            "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\ncontent-encoding: gzip\r\n";
        Reply::Whole(200, headers, packed.clone())
    })
    .await;
    let mut running = start(job(&of(&site)));
    running
        .until("the exemplar", |lines| {
            has(lines, "counter hits_total{} 5 trace=4bf92f3577b34da6a3ce929d0e0e4736")
        })
        .await;
    running.finish().await;
}

#[tokio::test]
async fn what_is_not_there_any_more_ends() {
    let site = Site::start(|_| page("a{x=\"1\"} 1\na{x=\"2\"} 2\nb 3\n")).await;
    let mut running = start(job(&of(&site)));
    let lines = running.until("a scrape", |lines| has(lines, "a{x=2} 2")).await;
    assert!(!has(&lines, "stale"));
    // A series goes.
    site.answers(|_| page("a{x=\"1\"} 1\nb 3\n"));
    let lines = running.until("its end", |lines| has(lines, "a{x=2} - stale")).await;
    assert!(!has(&lines, "a{x=1} - stale") && !has(&lines, "b{} - stale"));
    // The target fails, and all that is left ends, once.
    site.answers(|_| Reply::Whole(500, "", Vec::new()));
    let lines = running
        .until("a third failure", |lines| {
            lines.iter().filter(|line| line.contains("up{} 0")).count() >= 3
        })
        .await;
    let count = |lines: &[String], part: &str| lines.iter().filter(|line| line.contains(part)).count();
    assert_eq!(
        (
            count(&lines, "a{x=1} - stale"),
            count(&lines, "b{} - stale"),
            count(&lines, "a{x=2} - stale")
        ),
        (1, 1, 1)
    );
    assert!(!has(&lines, "up{} - stale"), "the series about scrapes go on");
    // And begins anew.
    let before = lines.len();
    site.answers(|_| page("b 4\n"));
    let lines = running.until("it is back", |lines| has(lines, "b{} 4")).await;
    assert!(has(&lines[before..], "up{} 1"));
    running.finish().await;
}

#[tokio::test]
async fn targets_come_from_files_and_go_with_them() {
    let one = Site::start(|_| page("a 1\n")).await;
    let two = Site::start(|_| page("a 2\n")).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("targets.json");
    let write = |text: String| std::fs::write(&file, text).unwrap();
    write(format!(
        r#"[{{"targets":["{}"],"labels":{{"zone":"z"}}}}]"#,
        one.address
    ));
    let mut running = start(job(&format!(
        "file_sd_configs: [ {{ files: [ '{}/*.json' ] }} ]\nrelabel_configs: [ {{ source_labels: [__meta_filepath], target_label: file }} ]\n",
        folder.path().display()
    )));
    running
        .until("the first target", |lines| {
            has(lines, &format!("a{{file={},zone=z}} 1", file.display()))
        })
        .await;
    // A file that cannot be read changes nothing; the next scrapes are there to see.
    write("[{".to_owned());
    let seen = running.batches.borrow().len();
    let lines = running.until("more", |lines| lines.len() > 20 * seen.max(3)).await;
    assert!(!has(&lines, "stale"));
    write(format!(r#"[{{"targets":["{}"]}}]"#, two.address));
    let lines = running
        .until("the second target, and the end of the first", |lines| {
            has(lines, &format!("a{{file={}}} 2", file.display()))
                && has(lines, "up{file=")
                && has(lines, "zone=z} - stale")
        })
        .await;
    for name in ["a", "up", "scrape_duration_seconds", "scrape_series_added"] {
        let end = format!("gauge {name}{{file={},zone=z}} - stale", file.display());
        assert!(has(&lines, &end), "{end} in {lines:#?}");
    }
    running.finish().await;
}

#[tokio::test]
async fn a_service_that_names_targets_may_be_away_and_changes_nothing_then() {
    let target = Site::start(|_| page("a 1\n")).await;
    let at = target.address;
    let list = move |labels: &str| {
        let text = format!(r#"[{{"targets":["{at}"],"labels":{{{labels}}}}}]"#);
        Reply::Whole(200, "content-type: application/json\r\n", text.into_bytes())
    };
    let discovery = Site::start(move |_| list(r#""zone":"one""#)).await;
    let mut running = start(job(&format!(
        "http_sd_configs: [ {{ url: '{}', refresh_interval: 100ms, basic_auth: {{ username: me, password: pw }} }} ]\n",
        discovery.url("/targets")
    )));
    running.until("the target", |lines| has(lines, "a{zone=one} 1")).await;
    let seen = discovery.seen.lock().unwrap()[0].clone();
    assert_eq!(seen.header("x-prometheus-refresh-interval-seconds"), Some("0.1"));
    assert_eq!(seen.header("authorization"), Some("Basic bWU6cHc="));
    let bad: Vec<Reply> = vec![
        Reply::Whole(500, "", Vec::new()),
        Reply::Whole(200, "content-type: application/json\r\n", b"{}".to_vec()),
        Reply::Whole(200, "content-type: text/html\r\n", b"[]".to_vec()),
        Reply::Whole(
            200,
            "content-type: application/json\r\n",
            br#"[{"targets":[5]}]"#.to_vec(),
        ),
        Reply::Endless(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n",
            b"[ ".repeat(1 << 12),
        ),
        Reply::Raw(b"\x00\x01garbage".to_vec()),
        Reply::Silence,
    ];
    let count = Arc::new(AtomicUsize::new(0));
    let (asked, length) = (count.clone(), bad.len());
    discovery.answers(move |_| bad[asked.fetch_add(1, Ordering::Relaxed) % bad.len()].clone());
    until("all of the bad answers", || count.load(Ordering::Relaxed) > length).await;
    let lines = running.until("scrapes all the while", |lines| lines.len() > 30).await;
    assert!(!has(&lines, "stale"), "{lines:#?}");
    discovery.answers(move |_| list(r#""zone":"two""#));
    running
        .until("the new label", |lines| {
            has(lines, "a{zone=two} 1") && has(lines, "a{zone=one} - stale")
        })
        .await;
    running.finish().await;
}

#[tokio::test]
async fn who_is_asked_is_told_who_asks() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "from-file\n").unwrap();
    let token = token.display();
    for (more, header, expect) in [
        (
            "basic_auth: { username: me, password: pw }".to_owned(),
            "authorization",
            "Basic bWU6cHc=",
        ),
        (
            format!("basic_auth: {{ username_file: '{token}', password: pw }}"),
            "authorization",
            "Basic ZnJvbS1maWxlOnB3",
        ),
        ("bearer_token: secret".to_owned(), "authorization", "Bearer secret"),
        (
            format!("bearer_token_file: '{token}'"),
            "authorization",
            "Bearer from-file",
        ),
        (
            "authorization: { credentials: secret }".to_owned(),
            "authorization",
            "Bearer secret",
        ),
        (
            format!("authorization: {{ type: Token, credentials_file: '{token}' }}"),
            "authorization",
            "Token from-file",
        ),
        (
            "http_headers: { x-scope: { values: [ tenant ] } }".to_owned(),
            "x-scope",
            "tenant",
        ),
        (
            "params: { module: [ 'a b', c ] }\nmetrics_path: /probe".to_owned(),
            "",
            "/probe?module=a%20b&module=c",
        ),
        ("enable_compression: false".to_owned(), "accept-encoding", "identity"),
        (
            "scrape_protocols: [ PrometheusText0.0.4 ]".to_owned(),
            "accept",
            "text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
        ),
    ] {
        let site = Site::start(|_| page("a 1\n")).await;
        let mut running = start(job(&format!("{}{more}\n", of(&site))));
        running.until("a scrape", |lines| has(lines, "a{} 1")).await;
        let seen = site.seen.lock().unwrap()[0].clone();
        let got = match header {
            "" => seen.path(),
            _ => seen.header(header).unwrap_or_default(),
        };
        assert_eq!(got, expect, "{more}");
        running.finish().await;
    }
}

#[tokio::test]
async fn a_redirect_is_followed_and_takes_no_credential_elsewhere() {
    let other = Site::start(|_| page("a 1\n")).await;
    let location: &'static str = format!("location: {}\r\n", other.url("/there")).leak();
    let site = Site::start(move |_| Reply::Whole(302, location, Vec::new())).await;
    let mut running = start(job(&format!(
        "{}bearer_token: secret\nhttp_headers: {{ x-key: {{ secrets: [ k ] }} }}\n",
        of(&site)
    )));
    running.until("the page from there", |lines| has(lines, "a{} 1")).await;
    let [here, there] = [&site, &other].map(|site| site.seen.lock().unwrap()[0].clone());
    assert_eq!(
        (here.header("authorization"), here.header("x-key")),
        (Some("Bearer secret"), Some("k"))
    );
    assert_eq!(
        (there.path(), there.header("authorization"), there.header("x-key")),
        ("/there", None, None)
    );
    running.finish().await;
    let mut running = start(job(&format!("{}follow_redirects: false\n", of(&site))));
    running.until("a failure", |lines| has(lines, "up{} 0")).await;
    running.finish().await;
}

#[tokio::test]
async fn targets_that_mean_harm_are_down_and_cost_little() {
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n";
    let bomb = {
        let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
        let zeros = vec![b'\n'; 32 << 20];
        let mut packed = vec![0; compressor.gzip_compress_bound(zeros.len())];
        let length = compressor.gzip_compress(&zeros, &mut packed).unwrap();
        packed.truncate(length);
        packed
    };
    let gzip = "content-encoding: gzip\r\ncontent-type: text/plain\r\n";
    let cases: Vec<(&'static str, &'static str, Reply)> = vec![
        (
            "a page without an end",
            "",
            Reply::Endless(OK, b"a 1\n".repeat(1 << 14)),
        ),
        ("a line without an end", "", Reply::Endless(OK, vec![b'a'; 1 << 16])),
        (
            "a gigabyte announced",
            "",
            Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\na 1\n".to_vec()),
        ),
        (
            "a head without an end",
            "",
            Reply::Endless("HTTP/1.1 200 OK\r\n", b"x: y\r\n".repeat(1 << 10)),
        ),
        ("silence", "", Reply::Silence),
        ("garbage", "", Reply::Raw(vec![0xff; 1000])),
        ("a bomb", "", Reply::Whole(200, gzip, bomb)),
        ("gzip that is none", "", Reply::Whole(200, gzip, b"a 1\n".to_vec())),
        (
            "a coding that was not asked for",
            "",
            Reply::Whole(200, "content-encoding: br\r\n", b"a 1\n".to_vec()),
        ),
        (
            "a page of HTML",
            "",
            Reply::Whole(200, "content-type: text/html\r\n", b"<html>\n".to_vec()),
        ),
        ("bytes that are no text", "", page("a 1\n").raw_tail(b"\xff\xfe 1\n")),
        (
            "OpenMetrics without its end",
            "",
            Reply::Whole(200, "content-type: application/openmetrics-text\r\n", b"a 1\n".to_vec()),
        ),
        ("too many samples", "sample_limit: 2", page("a 1\nb 1\nc 1\n")),
        ("too many labels", "label_limit: 4", page("a{b=\"1\",c=\"2\"} 1\n")),
        (
            "a long name",
            "label_name_length_limit: 8",
            page("a{long_label=\"1\"} 1\n"),
        ),
        (
            "a long value",
            "label_value_length_limit: 30",
            page(&format!("a{{b=\"{}\"}} 1\n", "x".repeat(31))),
        ),
        ("a large page", "body_size_limit: 1KiB", page(&"a 1\n".repeat(300))),
        (
            "a name that relabelling takes away",
            "metric_relabel_configs: [ { target_label: __name__, replacement: '' } ]",
            page("a 1\n"),
        ),
        ("an error", "", Reply::Whole(404, "", b"a 1\n".to_vec())),
        (
            "protobuf without an end",
            "",
            Reply::Endless(
                "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited\r\n\r\n",
                gauge().repeat(1 << 12),
            ),
        ),
        (
            "protobuf that is none",
            "",
            Reply::Whole(200, PROTOBUF, b"a 1\n".to_vec()),
        ),
        ("half a family", "", Reply::Whole(200, PROTOBUF, gauge()[..5].to_vec())),
        (
            "labels that many buckets share",
            "",
            Reply::Whole(200, PROTOBUF, shared_labels()),
        ),
        (
            "native histograms of nothing but gaps",
            "scrape_native_histograms: true",
            Reply::Whole(200, PROTOBUF, gaps()),
        ),
    ];
    let mut running = tokio::task::JoinSet::new();
    for (what, more, reply) in cases {
        running.spawn(harm(what, more, reply));
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn a_page_in_protobuf_is_asked_for_and_native_histograms_end() {
    let site = Site::start(|_| Reply::Whole(200, PROTOBUF, [gauge(), one_native()].concat())).await;
    let mut running = start(job(&format!("scrape_native_histograms: true\n{}", of(&site))));
    let lines = running.until("a scrape", |lines| has(lines, "up{} 1")).await;
    assert!(
        has(&lines, "| exponential b{} 5") && has(&lines, "gauge a{} 0"),
        "{lines:#?}"
    );
    assert!(has(&lines, "scrape_samples_scraped{} 2"), "{lines:#?}");
    let accept = site.seen.lock().unwrap()[0].header("accept").unwrap().to_owned();
    assert!(accept.starts_with("application/vnd.google.protobuf;proto="), "{accept}");
    site.answers(|_| Reply::Whole(200, PROTOBUF, gauge()));
    running
        .until("its end", |lines| {
            lines
                .iter()
                .any(|line| line.contains("| exponential b{}") && line.ends_with("stale"))
        })
        .await;
    running.finish().await;
}

async fn harm(what: &'static str, more: &'static str, reply: Reply) {
    const ROOM_BYTES: u64 = 16 << 20;
    let site = Site::start(move |_| reply.clone()).await;
    let settings = job(&format!(
        "scrape_interval: 300ms\nscrape_timeout: 300ms\n{}{more}\n",
        of(&site)
    ));
    let mut running = Working::start("prometheus", settings, ROOM_BYTES);
    let lines = running
        .until(what, |lines| {
            lines.iter().filter(|line| line.contains("up{} 0")).count() >= 2
        })
        .await;
    assert!(
        !lines.iter().any(|line| line.contains(" a{") || line.contains("up{} 1")),
        "{what}: {lines:#?}"
    );
    assert!(running.budget.peak_bytes() <= ROOM_BYTES, "{what}");
    // It comes back when it behaves.
    if more.is_empty() {
        site.answers(|_| page("a 1\n"));
        running.until(what, |lines| has(lines, "up{} 1")).await;
    }
    running.finish().await;
}

#[tokio::test]
async fn more_targets_than_may_be_are_all_down() {
    let sites = [
        Site::start(|_| page("a 1\n")).await,
        Site::start(|_| page("a 1\n")).await,
    ];
    let targets = format!(
        "static_configs: [ {{ targets: [ '{}', '{}' ] }} ]\n",
        sites[0].address, sites[1].address
    );
    let mut running = start(job(&format!("{targets}target_limit: 1\n")));
    let lines = running
        .until("both are down", |lines| {
            lines.iter().filter(|line| line.contains("up{} 0")).count() >= 4
        })
        .await;
    assert!(!has(&lines, "up{} 1"));
    assert!(
        sites.iter().all(|site| site.seen.lock().unwrap().is_empty()),
        "nobody was asked"
    );
    running.finish().await;
}

#[tokio::test]
async fn labels_and_times_are_honoured_where_the_job_says_so() {
    let site = Site::start(|_| page("a{job=\"own\"} 1 1600000000000\n")).await;
    let mut running = start(job(&format!("{}honor_labels: true\n", of(&site))));
    let lines = running.until("a scrape", |lines| has(lines, "up{")).await;
    assert!(
        has(&lines, "service.name=own| gauge a{} 1 at 1600000000000"),
        "{lines:#?}"
    );
    assert!(has(&lines, "service.name=shop| gauge up{} 1"), "{lines:#?}");
    // It has a time of its own, so that it does not end when it goes.
    site.answers(|_| page("b 1\n"));
    let lines = running.until("the other series", |lines| has(lines, "b{} 1")).await;
    assert!(!has(&lines, "stale"), "{lines:#?}");
    running.finish().await;

    site.answers(|_| page("a{job=\"own\"} 1 1600000000000\n"));
    let mut running = start(job(&format!("{}honor_timestamps: false\n", of(&site))));
    let lines = running.until("a scrape", |lines| has(lines, "up{")).await;
    assert!(
        lines[0].ends_with("service.name=shop| gauge a{exported_job=own} 1"),
        "{lines:#?}"
    );
    running.finish().await;
}

#[tokio::test]
async fn external_labels_and_the_series_on_demand() {
    let site = Site::start(|_| page("a 1\n")).await;
    let mut running = start(settings(&format!(
        "report_extra_scrape_metrics: true\nconfig:\n  global: {{ scrape_interval: 100ms, external_labels: {{ region: eu }} }}\n  scrape_configs:\n  \
         - {{ job_name: shop, sample_limit: 9, static_configs: [ {{ targets: ['{}'], labels: {{ region: us }} }} ] }}\n",
        site.address
    )));
    let lines = running.until("a scrape", |lines| has(lines, "up{")).await;
    // External labels go on top of everything, as in the collector.
    for expect in [
        "a{region=eu} 1",
        "up{region=eu} 1",
        "scrape_sample_limit{region=eu} 9",
        "scrape_body_size_bytes{region=eu} 4",
        "scrape_timeout_seconds{region=eu} 0.1",
    ] {
        assert!(has(&lines, expect), "{expect} in {lines:#?}");
    }
    running.finish().await;
}

#[tokio::test]
async fn what_the_pipeline_refuses_is_dropped_and_counted() {
    let site = Site::start(|_| page("a 1\n")).await;
    let mut running = start(job(&of(&site)));
    running.until("a scrape", |lines| has(lines, "a{} 1")).await;
    *running.outcome.lock().unwrap() = Outcome::retry(Duration::from_secs(1), Reason::JournalFull);
    until("refusals", || running.turned_away("journal_full") >= 12).await;
    *running.outcome.lock().unwrap() = Outcome::Delivered;
    let before = running.batches.borrow().len();
    running
        .until("scrapes again", |lines| lines.len() > 6 * (before + 1))
        .await;
    running.finish().await;
}

#[tokio::test]
async fn jobs_may_stand_in_files_of_their_own() {
    let site = Site::start(|_| page("a 1\n")).await;
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "scrape_configs:\n- job_name: other\n  static_configs: [ {{ targets: [ '{}' ] }} ]\n",
        site.address
    );
    std::fs::write(folder.path().join("one.yml"), text).unwrap();
    let mut running = start(settings(&format!(
        "config:\n  global: {{ scrape_interval: 100ms }}\n  scrape_config_files: [ '{}/*.yml' ]\n",
        folder.path().display()
    )));
    running
        .until("a scrape", |lines| {
            has(lines, "service.name=other") && has(lines, "a{} 1")
        })
        .await;
    running.finish().await;
}

/// A door with the certificate of `localhost`, and how a job asks it.
async fn over_tls() -> (net::Open, String) {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../net/tests/fixtures");
    let mut doors = net::Doors::new();
    let service = net::handler_fn(|_| async {
        let mut response = http::Response::new(net::full_body("a 1\n"));
        let kind = http::HeaderValue::from_static("text/plain");
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        response
    });
    let mount = net::Mount::Http {
        at: net::At::Rest,
        service,
    };
    let settings = net::DoorSettings {
        tls: Some(net::TlsFiles {
            cert_file: fixtures.join("localhost.crt"),
            key_file: fixtures.join("localhost.key"),
            client_ca_file: None,
            min_version: net::TlsVersion::default(),
        }),
        ..net::DoorSettings::default()
    };
    let endpoint = "127.0.0.1:0".parse().unwrap();
    doors.mount_with(&endpoint, "site", mount, settings).unwrap();
    let open = doors.open().await.unwrap();
    let job = format!(
        "scheme: https\nscrape_interval: 1s\nscrape_timeout: 1s\nstatic_configs: [ {{ targets: [ '{}' ] }} ]\n",
        open.address_of("site").unwrap()
    );
    (open, job)
}

#[tokio::test]
async fn tls_is_believed_as_the_job_says() {
    let (open, over_tls) = over_tls().await;
    let trust = format!("{}/../net/tests/fixtures/localhost.crt", env!("CARGO_MANIFEST_DIR"));
    for (tls, expect) in [
        (format!("{{ ca_file: '{trust}', server_name: localhost }}"), "up{} 1"),
        ("{ insecure_skip_verify: true }".to_owned(), "up{} 1"),
        // It is for another name.
        (format!("{{ ca_file: '{trust}', server_name: example.com }}"), "up{} 0"),
    ] {
        let mut running = start(job(&format!("{over_tls}tls_config: {tls}\n")));
        let lines = running.until(&tls, |lines| has(lines, "up{")).await;
        assert!(has(&lines, expect), "{tls}: {lines:#?}");
        running.finish().await;
    }
    assert!(open.shutdown(PATIENCE).await);
}

#[tokio::test]
async fn a_real_prometheus_is_scraped() {
    let Some(real) = Real::start(&[], "") else { return };
    // Once in OpenMetrics and once in the old format.
    for protocols in ["OpenMetricsText1.0.0", "PrometheusText0.0.4"] {
        let mut running = start(job(&format!(
            "scrape_interval: 300ms\nscrape_timeout: 300ms\nscrape_protocols: [ {protocols} ]\nstatic_configs: [ {{ targets: [ '127.0.0.1:{}' ] }} ]\n",
            real.port
        )));
        let lines = running
            .until("two good scrapes", |lines| {
                lines.iter().filter(|line| line.contains("up{} 1")).count() >= 2
            })
            .await;
        for expect in [
            "gauge prometheus_ready{} 1",
            "| gauge prometheus_build_info{",
            "| counter prometheus_http_requests_total{code=200,handler=",
            "| summary go_gc_duration_seconds{}",
            "| histogram prometheus_http_request_duration_seconds{handler=",
        ] {
            assert!(has(&lines, expect), "{protocols}: {expect} in {lines:#?}");
        }
        running.finish().await;
    }
}

/// A native histogram of ours goes through a real Prometheus, which asks for it and tells it again in its own bytes, at `/federate`.
#[tokio::test]
async fn a_real_prometheus_tells_native_histograms() {
    let deltas = [2 << 1, 1 << 1];
    let spans = inner(12, &[1 << 3, 1 << 1, 2 << 3, 2]);
    let mut histogram = [&[1 << 3, 5, 5 << 3, 3 << 1][..], &spans, &inner(13, &deltas)].concat();
    model::wire::put_fixed64(&mut histogram, 2, 12.5f64.to_bits());
    let label = inner(1, &[inner(1, b"path"), inner(2, b"/")].concat());
    let metric = inner(4, &[label, inner(7, &histogram)].concat());
    let native = delimited(&[&inner(1, b"took_seconds")[..], &[3 << 3, 4], &metric].concat());
    let site = Site::start(move |_| Reply::Whole(200, PROTOBUF, native.clone())).await;
    let jobs = format!(
        "scrape_configs: [ {{ job_name: shop, scrape_interval: 300ms, scrape_timeout: 300ms, static_configs: [ {{ targets: [ '{}' ] }} ] }} ]\n",
        site.address
    );
    let Some(real) = Real::start(&["--enable-feature=native-histograms"], &jobs) else {
        return;
    };
    let targets = format!("static_configs: [ {{ targets: [ '127.0.0.1:{}' ] }} ]\n", real.port);
    let every = "scrape_interval: 300ms\nscrape_timeout: 300ms\n";
    let mut running = start(job(&format!(
        "{every}scrape_native_histograms: true\nhonor_labels: true\nmetrics_path: /federate\nparams: {{ 'match[]': [ took_seconds ] }}\n{targets}"
    )));
    running
        .until("the histogram", |lines| {
            lines
                .iter()
                .any(|line| line.contains("| exponential took_seconds{") && line.ends_with(" 5"))
        })
        .await;
    running.finish().await;
    // Its own page, once in protobuf with native histograms wanted, and once without.
    for wanted in [true, false] {
        let mut running = start(job(&format!(
            "{every}scrape_protocols: [ PrometheusProto ]\nscrape_native_histograms: {wanted}\n{targets}"
        )));
        let lines = running
            .until("two good scrapes", |lines| {
                lines.iter().filter(|line| line.contains("up{} 1")).count() >= 2
            })
            .await;
        for expect in [
            "gauge prometheus_ready{} 1",
            "| counter prometheus_http_requests_total{code=200,handler=",
            "| summary go_gc_duration_seconds{}",
            "| histogram prometheus_http_request_duration_seconds{handler=",
        ] {
            assert!(has(&lines, expect), "{expect} in {lines:#?}");
        }
        running.finish().await;
    }
}
