//! The settings as data, a made-up machine in a folder, and the machine that the test runs on.

use std::collections::BTreeSet;
use std::sync::Mutex;

use model::view::metrics::resource_metrics;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use pipeline::config::Source;
use pipeline::{Ack, Budget, Entry, Ledger};
use prost::Message;

use super::*;
use crate::settings::Settings;

fn read(settings: &str) -> Result<(Config, Vec<String>), String> {
    let yaml = format!(
        "receivers:\n  hostmetrics:\n    {settings}\nexporters: {{debug: }}\nservice: {{pipelines: {{metrics: {{receivers: [hostmetrics], exporters: [debug]}}}}}}\n"
    );
    let document = pipeline::config::Config::load(vec![Source::new("test", yaml)], &|_| None).unwrap();
    let config = Config::parse(&document.section(&document.receivers[0])).map_err(|problems| problems.to_string())?;
    Ok((config, Vec::new()))
}

/// Points as `metric{attributes} value`, with the attributes of processes left out.
fn points(requests: &[Request]) -> Vec<String> {
    let mut lines = Vec::new();
    for request in requests {
        let canonical = canonicalize(Signal::Metrics, Bytes::from(request.out.clone())).unwrap();
        assert!(!canonical.rewritten, "it is written as it has to be");
        assert_eq!(canonical.items, request.points);
        assert!(resource_metrics(&canonical.payload).iter().next().is_some());
        let request = ExportMetricsServiceRequest::decode(canonical.payload.clone()).unwrap();
        let metrics = request
            .resource_metrics
            .into_iter()
            .flat_map(|resource| resource.scope_metrics);
        for metric in metrics.flat_map(|scope| scope.metrics) {
            let points = match metric.data.unwrap() {
                Data::Gauge(gauge) => gauge.data_points,
                Data::Sum(sum) => {
                    assert_eq!(sum.aggregation_temporality, 2);
                    sum.data_points
                }
                other => panic!("{other:?}"),
            };
            for point in points {
                assert!(point.time_unix_nano >= point.start_time_unix_nano);
                let attributes: Vec<String> = point
                    .attributes
                    .iter()
                    .map(|pair| match pair.value.as_ref().unwrap().value.as_ref().unwrap() {
                        AnyValue::StringValue(text) => format!("{}={text}", pair.key),
                        other => panic!("{other:?}"),
                    })
                    .collect();
                let value = match point.value.unwrap() {
                    Number::AsInt(number) => number.to_string(),
                    Number::AsDouble(number) => format!("{number:?}"),
                };
                lines.push(format!("{}{{{}}} {value}", metric.name, attributes.join(",")));
            }
        }
    }
    lines
}

const ALL: &str = "cpu: {metrics: {system.cpu.utilization: {enabled: true}, system.cpu.logical.count: {enabled: true}}}, load: , \
    memory: {metrics: {system.memory.utilization: {enabled: true}}}, disk: , filesystem: {metrics: {system.filesystem.utilization: {enabled: true}}}, \
    network: , paging: , processes: , system: , \
    process: {metrics: {process.threads: {enabled: true}, process.open_file_descriptors: {enabled: true}, process.memory.virtual: {enabled: false}}}";

#[test]
fn this_machine_tells_all_of_it() {
    let (config, _) = read(&format!("scrapers: {{{ALL}}}")).unwrap();
    let mut scraper = Scraper::new(config.plan().unwrap());
    scraper.scrape();
    // Shares of the time in between need some.
    let mut turns = 0u64;
    let lines = loop {
        (0..5_000_000u64).for_each(|number| turns = turns.wrapping_add(number ^ turns));
        let lines = points(&scraper.scrape());
        if lines.iter().any(|line| line.starts_with("system.cpu.utilization")) {
            break lines;
        }
    };
    let names: BTreeSet<&str> = lines.iter().filter_map(|line| line.split('{').next()).collect();
    for name in [
        "system.cpu.time",
        "system.cpu.utilization",
        "system.cpu.logical.count",
        "system.cpu.load_average.1m",
        "system.memory.usage",
        "system.memory.utilization",
        "system.network.io",
        "system.network.connections",
        "system.paging.faults",
        "system.processes.count",
        "system.processes.created",
        "system.uptime",
        "process.cpu.time",
        "process.memory.usage",
        "process.threads",
    ] {
        assert!(names.contains(name), "{name} is missing in {names:?}");
    }
    assert!(!names.contains("process.memory.virtual"), "it was turned off");
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("system.cpu.time{cpu=cpu0,state=user}"))
    );
    let shares = lines
        .iter()
        .filter(|line| line.starts_with("system.cpu.utilization{cpu=cpu0"));
    let sum: f64 = shares
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert!(
        sum == 0.0 || (sum - 1.0).abs() < 1e-6,
        "the shares of a processor are one: {sum}"
    );
}

/// A folder as a machine's root.
fn machine() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "proc/stat",
        "cpu 1 1\ncpu0 100 0 50 0 0 0 0 0\nbtime 1700000000\nprocesses 42\n",
    );
    write("proc/loadavg", "2.00 1.00 0.50 1/2 3\n");
    write(
        "proc/diskstats",
        "8 0 sda 1 2 4 1000 3 4 8 2000 5 3000 4000\n7 0 loop0 1 2 4 1000 3 4 8 2000 5 3000 4000\n",
    );
    write(
        "proc/1/net/dev",
        "eth0: 10 1 0 0 0 0 0 0 20 2 0 0 0 0 0 0\nlo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n",
    );
    write(
        "proc/1/stat",
        "1 (init) S 0 1 1 0 -1 0 5 0 1 0 100 50 0 0 20 0 3 0 100 4096 2 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0",
    );
    write("proc/1/status", "Name: init\nUid:\t7\t7\t7\t7\n");
    write("proc/1/cmdline", "/sbin/init\0--now\0");
    write("proc/2/stat", "broken");
    write(
        "proc/meminfo",
        "MemTotal: 100 kB\nMemFree: 40 kB\nBuffers: 10 kB\nCached: 20 kB\nSReclaimable: 5 kB\n",
    );
    write("etc/passwd", "root:x:0:0::/root:/bin/sh\nseven:x:7:7::/:/bin/false\n");
    folder
}

#[test]
fn a_machine_below_another_root() {
    let folder = machine();
    let settings = format!(
        "root_path: {}\n    scrapers: {{load: {{cpu_average: true}}, memory: , disk: {{exclude: {{devices: ['^loop'], match_type: regexp}}}}, network: {{include: {{interfaces: [eth0], match_type: strict}}}}, processes: , process: , paging: }}",
        folder.path().display()
    );
    let (config, _) = read(&settings).unwrap();
    let requests = Scraper::new(config.plan().unwrap()).scrape();
    let lines = points(&requests);
    for expect in [
        "system.cpu.load_average.1m{} 2.0",
        "system.memory.usage{state=used} 25600",
        "system.memory.usage{state=cached} 25600",
        "system.disk.io{device=sda,direction=write} 4096",
        "system.disk.io_time{device=sda} 3.0",
        "system.disk.pending_operations{device=sda} 5",
        "system.network.io{device=eth0,direction=transmit} 20",
        "system.processes.count{status=sleeping} 1",
        "system.processes.created{} 42",
        "process.cpu.time{state=user} 1.0",
        "process.memory.virtual{} 4096",
    ] {
        assert!(
            lines.iter().any(|line| line == expect),
            "{expect} is missing in {lines:#?}"
        );
    }
    assert!(
        !lines
            .iter()
            .any(|line| line.contains("loop0") || line.contains("device=lo,"))
    );
    let request = ExportMetricsServiceRequest::decode(Bytes::from(requests[0].out.clone())).unwrap();
    let process = request
        .resource_metrics
        .iter()
        .filter_map(|it| it.resource.as_ref())
        .find(|it| !it.attributes.is_empty());
    let attributes: Vec<String> = process
        .unwrap()
        .attributes
        .iter()
        .map(|pair| format!("{}={:?}", pair.key, pair.value.as_ref().unwrap().value))
        .collect();
    for expect in [
        "process.owner=Some(StringValue(\"seven\"))",
        "process.command_line=Some(StringValue(\"/sbin/init --now\"))",
        "process.pid=Some(IntValue(1))",
    ] {
        assert!(
            attributes.iter().any(|attribute| attribute == expect),
            "{expect} is missing in {attributes:?}"
        );
    }
}

#[test]
fn a_measurement_is_offered_again_and_a_stop_ends_the_work() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let asked = Arc::new(Mutex::new((0, 0)));
    let counts = Arc::clone(&asked);
    let entry: Arc<dyn Entry> = Arc::new(move |_: Batch, ack: Ack| {
        let mut counts = counts.lock().unwrap();
        counts.0 += 1;
        if counts.0 < 3 {
            return ack.resolve(Outcome::retry(Duration::from_millis(1), Reason::JournalFull));
        }
        counts.1 += 1;
        ack.resolve(Outcome::Delivered);
    });
    let ledger = Ledger::new();
    let intake = Intake::new(
        "hostmetrics",
        &ledger,
        Budget::root("test", 8 << 20),
        vec![(Signal::Metrics, entry)],
    );
    let (config, _) = read("collection_interval: 1s\n    initial_delay: 0s\n    scrapers: {load: }").unwrap();
    let mounted = Box::new(config).mount(intake, &mut Doors::new()).unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let work = runtime.spawn(mounted.work.unwrap()(stopped));
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while asked.lock().unwrap().1 == 0 {
        assert!(std::time::Instant::now() < deadline, "nothing was taken");
        std::thread::sleep(Duration::from_millis(2));
    }
    stop.send(true).unwrap();
    runtime.block_on(work).unwrap();
    ledger.balance().unwrap();
}

#[test]
fn settings_and_their_mistakes() {
    let (config, _) = read("scrapers: {cpu: , disk: {include: {devices: [sda], match_type: strict}}}").unwrap();
    assert_eq!(config.collection_interval, Duration::from_secs(60));
    assert!(
        read("scrapers: {cpu: {metrics: {system.cpu.physical.count: {enabled: true}}}}").is_ok(),
        "only a warning"
    );
    for (settings, expect) in [
        ("scrapers: {}", "name at least one scraper"),
        ("collection_interval: 10s", "scrapers"),
        ("scrapers: {cpux: }", "did you mean `cpu`?"),
        (
            "scrapers: {cpu: {metrics: {cpu.time: {enabled: true}}}}",
            "is not a metric of the scraper `cpu`",
        ),
        (
            "scrapers: {disk: {include: {devices: ['('], match_type: regexp}}}",
            "is not a pattern",
        ),
        (
            "scrapers: {disk: {include: {interfaces: [a], match_type: strict}}}",
            "interfaces",
        ),
        ("collection_interval: 1ms\n    scrapers: {cpu: }", "at least 10ms"),
    ] {
        let said = read(settings).err().unwrap_or_default();
        assert!(said.starts_with("test:") && said.contains(expect), "{settings}: {said}");
    }
}
