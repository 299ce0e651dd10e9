//! The process scrapes and checks itself, and shows what it found on its own page: discovery to exposition in one binary. And the owner's `prometheus.yml`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::owners::owners;
use crate::running::{Ports, get};

const WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It has ended by itself unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_scrapes_itself_and_shows_what_it_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let ports = Ports::free();
    let (own, page, health) = (ports.http, ports.query, ports.health);
    let yml = directory.path().join("prometheus.yml");
    let scrape = format!(
        "global: {{ scrape_interval: 200ms, external_labels: {{ project: starmates-ai-team }} }}
scrape_configs:
  - job_name: collector
    static_configs: [ {{ targets: [ '127.0.0.1:{own}' ] }} ]
    metric_relabel_configs:
      - {{ source_labels: [ __name__ ], regex: 'otelcol_(process_.*)', target_label: kind, replacement: $1 }}
"
    );
    fs::write(&yml, scrape).expect("writes");
    let config = directory.path().join("config.yaml");
    let text = format!(
        "receivers:
  prometheus: {{ config: '${{file:{}}}' }}
  httpcheck:
    collection_interval: 200ms
    initial_delay: 0s
    targets:
      - {{ endpoint: 'http://127.0.0.1:{health}/', service_name: collector }}
      - {{ endpoint: 'http://127.0.0.1:1/', service_name: nobody }}
exporters:
  prometheus: {{ endpoint: '127.0.0.1:{page}' }}
extensions:
  health_check: {{ endpoint: '127.0.0.1:{health}' }}
service:
  extensions: [health_check]
  telemetry: {{ metrics: {{ address: '127.0.0.1:{own}' }} }}
  pipelines:
    metrics: {{ receivers: [prometheus, httpcheck], exporters: [prometheus] }}
",
        yml.display()
    );
    fs::write(&config, text).expect("writes");
    let started = Command::new(env!("CARGO_BIN_EXE_trackline"))
        .arg("--config")
        .arg(&config)
        .current_dir(directory.path())
        .stdout(Stdio::null())
        .spawn();
    let mut child = Ended(started.expect("the binary starts"));
    let wanted = [
        vec![
            "up{",
            &format!("instance=\"127.0.0.1:{own}\""),
            "job=\"collector\"",
            "project=\"starmates-ai-team\"",
            "} 1",
        ],
        vec!["otelcol_process_uptime", "kind=\"process_uptime", "job=\"collector\""],
        vec!["scrape_samples_scraped{", "job=\"collector\""],
        vec![
            "httpcheck_up{",
            "http_url=\"http://127.0.0.1:",
            "job=\"collector\"",
            "} 1",
        ],
        vec![
            "httpcheck_status{",
            "http_status_class=\"2xx\"",
            "job=\"collector\"",
            "} 1",
        ],
        vec![
            "httpcheck_up{",
            "http_url=\"http://127.0.0.1:1/\"",
            "job=\"nobody\"",
            "} 0",
        ],
    ]
    .map(|parts| parts.into_iter().map(str::to_owned).collect::<Vec<String>>());
    let deadline = Instant::now() + WITHIN;
    loop {
        let text = get(page, "/metrics").map(|(_, body)| String::from_utf8_lossy(&body).into_owned());
        let text = text.unwrap_or_default();
        let is_there = |parts: &Vec<String>| text.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        let Some(missing) = wanted.iter().find(|parts| !is_there(parts)) else {
            break;
        };
        assert!(Instant::now() < deadline, "{missing:?} is not in\n{text}");
        assert!(child.0.try_wait().expect("ours").is_none(), "it ended");
        std::thread::sleep(POLL);
    }
    let asked = Command::new("kill").arg("-TERM").arg(child.0.id().to_string()).status();
    assert!(asked.expect("kill runs").success());
    assert_eq!(child.0.wait().expect("it ends").code(), Some(0));
}

#[test]
fn the_owners_scrape_configuration_is_valid_below_config() {
    let Some(file) = owners("prometheus.yml") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    // A file that everybody may read is warned of, and this one is about something else.
    let text = fs::read_to_string(file).expect("reads");
    let file = directory.path().join("prometheus.yml");
    fs::write(&file, text).expect("writes");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("ours");
    let config = directory.path().join("config.yaml");
    let text = format!(
        "receivers: {{ prometheus: {{ config: '${{file:{}}}' }} }}\nexporters: {{ debug: }}\n\
         service: {{ pipelines: {{ metrics: {{ receivers: [prometheus], exporters: [debug] }} }} }}\n",
        file.display()
    );
    fs::write(&config, text).expect("writes");
    let said = Command::new(env!("CARGO_BIN_EXE_trackline"))
        .args(["validate", "--json", "--config"])
        .arg(&config)
        .output()
        .expect("the binary starts");
    let report: Value = serde_json::from_slice(&said.stdout).expect("JSON");
    assert!(said.status.success(), "{report:#}");
    assert_eq!(report["warnings"].as_array().map(Vec::len), Some(0), "{report:#}");
}
