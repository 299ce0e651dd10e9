//! Configurations as they are written for Prometheus, and mistakes in them.

use std::time::Duration;

use super::*;

/// The settings, and what there is to say about them.
fn read(settings: &str) -> Result<(Config, Vec<String>), String> {
    let indented: String = settings.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!("receivers:\n  prometheus:\n{indented}service: {{ pipelines: {{ metrics: {{}} }} }}\n");
    let config = pipeline::config::Config::load(vec![Source::new("test", text)], &|_| None)
        .map_err(|error| error.to_string())?;
    let read = Config::parse(&config.section(&config.receivers[0])).map_err(|error| error.to_string())?;
    let warnings = config.warnings().into_iter().map(|warning| warning.message).collect();
    Ok((read, warnings))
}

fn jobs(jobs: &str) -> String {
    format!("config:\n  scrape_configs:\n  - {{ job_name: a, {jobs} }}")
}

/// What a configuration may have, as far as it scrapes.
const WHOLE: &str = r#"
trim_metric_suffixes: false
use_start_time_metric: true
config:
  global:
    scrape_interval: 15s
    evaluation_interval: 30s
    external_labels: { region: eu, tier: edge }
    body_size_limit: 15MB
    sample_limit: 1500
    target_limit: 30
    label_limit: 30
    label_name_length_limit: 200
    label_value_length_limit: 200
  scrape_configs:
  - job_name: prometheus
    honor_labels: true
    params: { module: [ http_2xx ] }
    static_configs:
    - targets: [ 'localhost:9090', 'localhost:9191' ]
      labels: { team: shop }
    file_sd_configs:
    - files: [ targets/*.json, more.yml ]
      refresh_interval: 10m
    relabel_configs:
    - source_labels: [ job, __meta_filepath ]
      regex: ([^;]+);.*/(.+)[.]json
      target_label: job
      replacement: $${1}-$${2}
    - source_labels: [ cluster ]
      target_label: cluster
    - { regex: (.*), action: labelmap, replacement: x_$$1 }
    authorization: { credentials_file: token }
    tls_config: { min_version: TLS10 }
  - job_name: billing
    basic_auth: { username: scraper, password: "open sesame" }
    scrape_interval: 50s
    scrape_timeout: 5s
    body_size_limit: 10MB
    sample_limit: 1000
    scrape_protocols: [ PrometheusText0.0.4, OpenMetricsText1.0.0, PrometheusProto ]
    fallback_scrape_protocol: PrometheusText1.0.0
    metrics_path: /internal/metrics
    scheme: https
    http_sd_configs: [ { url: 'http://discovery.example.com/targets', refresh_interval: 100s } ]
    metric_relabel_configs:
    - { source_labels: [ __name__ ], regex: debug_.*, action: drop }
  - job_name: plain
    static_configs: [ { targets: [ "127.0.0.1:8000" ] } ]
"#;

#[test]
fn a_prometheus_yml_is_read_as_it_is() {
    let (config, warnings) = read(WHOLE).expect("right");
    let jobs: Vec<Job> = config.jobs().expect("right");
    let [first, second, third] = &jobs[..] else {
        panic!("three jobs")
    };
    let seconds = |job: &Job| (job.interval.as_secs(), job.timeout.as_secs());
    assert_eq!(
        [seconds(first), seconds(second), seconds(third)],
        [(15, 10), (50, 5), (15, 10)]
    );
    assert_eq!((first.limits.samples, second.limits.samples), (Some(1500), Some(1000)));
    assert_eq!((first.max_body_bytes, second.max_body_bytes), (15_000_000, 10_000_000));
    assert_eq!(
        first.files,
        [(
            vec!["targets/*.json".into(), "more.yml".into()],
            Duration::from_secs(600)
        )]
    );
    assert_eq!(
        second.accept,
        "text/plain;version=0.0.4;q=0.4,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.3,\
         application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.2,*/*;q=0.1"
    );
    // Who names the format wants what only that has.
    assert!(second.histograms.natives && !first.histograms.natives);
    assert_eq!(
        warnings,
        [
            "`evaluation_interval` has no effect",
            "`use_start_time_metric` has no effect; newer collectors do not have it",
        ]
    );
    assert!(!format!("{config:?} {jobs:?}").contains("open sesame"));
}

#[test]
fn mistakes_have_their_place() {
    for (settings, place, expect) in [
        ("{}", "3", "the key `config` is missing"),
        ("config: {}", "3", "there is nothing to scrape"),
        ("config:\n  scrape_config: []", "4", "did you mean `scrape_configs`?"),
        (
            "config:\n  scrape_configs:\n  - static_configs: []",
            "5",
            "the key `job_name` is missing",
        ),
        (
            "config:\n  scrape_configs: [ { job_name: a },\n    { job_name: a } ]",
            "5",
            "another job called `a`",
        ),
        ("config:\n  rule_files: [ a ]", "4", "rules are not evaluated here"),
        (
            "config:\n  remote_write: [ { url: x } ]",
            "4",
            "the exporter `prometheusremotewrite`",
        ),
        (
            "config:\n  scrape_configs: [ { job_name: a } ]\n  alerting: { alertmanagers: [ { } ] }",
            "5",
            "nobody is alerted",
        ),
        ("config:\n  global: { scrape_interval: 15 }", "4", "the unit is missing"),
        (
            "config:\n  global: { scrape_timeout: 2m }\n  scrape_configs: [ { job_name: a } ]",
            "4",
            "is longer than",
        ),
        (
            "target_allocator: { endpoint: x }\nconfig: {}",
            "3",
            "can be asked with `http_sd_configs`",
        ),
        (
            "trim_metric_suffixes: true\nconfig: {}",
            "3",
            "names stay as targets write them",
        ),
        (
            &jobs("kubernetes_sd_configs: [ { role: pod } ]"),
            "5",
            "`kubernetes_sd_configs` is not available",
        ),
        (&jobs("consul_sd_configs: []"), "5", "for `file_sd_configs`"),
        (&jobs("static_config: []"), "5", "did you mean `static_configs`?"),
        (&jobs("oauth2: { client_id: x }"), "5", "tokens are not fetched here"),
        (&jobs("proxy_url: 'http://p'"), "5", "through a proxy"),
        (
            &jobs("http_sd_configs: [ { url: 'http://x', proxy_url: 'http://p' } ]"),
            "5",
            "through a proxy",
        ),
        (
            &jobs("http_sd_configs: [ { url: x } ]"),
            "5",
            "does not begin with http://",
        ),
        (
            &jobs("scrape_interval: 1s, scrape_timeout: 2s"),
            "5",
            "is longer than the interval, 1s",
        ),
        (&jobs("scrape_interval: 1ms"), "5", "must be at least 10ms"),
        (&jobs("scheme: htp"), "5", "did you mean `http`?"),
        (&jobs("body_size_limit: 2GiB"), "5", "must be at most 1GiB"),
        (
            &jobs("static_configs: [ { targets: [ 'http://a:1/metrics' ] } ]"),
            "5",
            "is not host:port",
        ),
        (
            &jobs("static_configs: [ { target: [ a ] } ]"),
            "5",
            "did you mean `targets`?",
        ),
        (
            &jobs("file_sd_configs: [ { files: [ a.txt ] } ]"),
            "5",
            "does not end in .json",
        ),
        (
            &jobs("file_sd_configs: [ { files: [ '*/a.json' ] } ]"),
            "5",
            "only the last part",
        ),
        (
            &jobs("scrape_native_histograms: true, scrape_protocols: [ PrometheusText1.0.0 ]"),
            "5",
            "without `PrometheusProto` there are no native histograms",
        ),
        (
            &jobs("scrape_protocols: [ OpenMetrics ]"),
            "5",
            "`OpenMetrics` is not a format; known are OpenMetricsText1.0.0",
        ),
        (
            &jobs("scrape_protocols: [ PrometheusText1.0.0, PrometheusText1.0.0 ]"),
            "5",
            "is there twice",
        ),
        (
            &jobs("bearer_token: x, basic_auth: { username: y }"),
            "5",
            "`basic_auth` and `bearer_token` exclude each other",
        ),
        (
            &jobs("basic_auth: { password: x, password_file: y }"),
            "5",
            "`password_file` and `password` exclude each other",
        ),
        (&jobs("authorization: { type: basic }"), "5", "a key of their own"),
        (
            &jobs("http_headers: { Authorization: { values: [ x ] } }"),
            "5",
            "`Authorization` is not set here",
        ),
        (
            &jobs("tls_config: { cert_file: c }"),
            "5",
            "`cert_file` needs `key_file`",
        ),
        (
            &jobs("relabel_configs: [ { action: keep, regex: '(' } ]"),
            "5",
            "`(` is not a regular expression: unclosed group",
        ),
        (
            &jobs("metric_relabel_configs: [ { action: kep } ]"),
            "5",
            "did you mean `keep`?",
        ),
        (
            &jobs("relabel_configs: [ { source_labels: [ a ] } ]"),
            "5",
            "`replace` needs a `target_label`",
        ),
        (&jobs("sample_limit: -1"), "5", "expected a whole number"),
    ] {
        let said = read(settings).expect_err(settings);
        assert!(
            said.contains(&format!("test:{place}:")) && said.contains(expect),
            "{settings}: {said}"
        );
    }
}

#[test]
fn a_file_of_jobs_is_checked_at_the_start() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("jobs.yml");
    let settings = format!(
        "config:\n  scrape_configs: [ {{ job_name: a }} ]\n  scrape_config_files: [ '{}' ]",
        file.display()
    );
    let (config, _) = read(&settings).expect("right");
    assert_eq!(config.jobs().expect("the file is not there yet").len(), 1);
    for (text, expect) in [
        ("scrape_configs: [ { job_nam: b } ]", "jobs.yml:1"),
        ("scrape_configs: [ { job_name: a } ]", "several jobs are called `a`"),
        (
            "scrape_configs: [ { job_name: b, scrape_interval: 1ms } ]",
            "job `b`: scrape_interval: must be at least",
        ),
    ] {
        std::fs::write(&file, text).expect("writes");
        let said = config.jobs().expect_err(text).to_string();
        assert!(said.contains(expect), "{said}");
    }
}
