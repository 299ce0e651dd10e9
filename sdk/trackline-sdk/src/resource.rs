//! What every span and log record says about its process (SPEC S1).

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

use crate::settings::Settings;

pub(crate) fn describe(settings: &Settings) -> Resource {
    let mut attributes = vec![
        KeyValue::new("service.name", settings.service.clone()),
        KeyValue::new("service.version", settings.version.clone()),
        KeyValue::new("deployment.environment.name", settings.environment.clone()),
        // The older name: dashboards and the owner's collector file know it.
        KeyValue::new("deployment.environment", settings.environment.clone()),
        KeyValue::new("host.arch", std::env::consts::ARCH),
        KeyValue::new("os.type", std::env::consts::OS),
        KeyValue::new("process.pid", i64::from(std::process::id())),
        KeyValue::new("process.runtime.name", "rust"),
        KeyValue::new("telemetry.sdk.name", "trackline"),
        KeyValue::new("telemetry.sdk.language", "rust"),
        KeyValue::new("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    if let Some(project) = &settings.project {
        attributes.push(KeyValue::new("project", project.clone()));
    }
    if let Some(name) = host_name() {
        attributes.push(KeyValue::new("host.name", name));
    }
    let executable = std::env::current_exe().ok();
    if let Some(name) = executable.as_deref().and_then(|path| path.file_name()) {
        attributes.push(KeyValue::new(
            "process.executable.name",
            name.to_string_lossy().into_owned(),
        ));
    }
    if !settings.resource.iter().any(|(key, _)| key == INSTANCE) {
        attributes.push(KeyValue::new(INSTANCE, random_uuid()));
    }
    attributes.extend(
        settings
            .resource
            .iter()
            .map(|(key, value)| KeyValue::new(key.clone(), value.clone())),
    );
    Resource::builder_empty().with_attributes(attributes).build()
}

const INSTANCE: &str = "service.instance.id";

fn host_name() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
}

/// A version 4 UUID: new with each start, so that two replicas' series never collide.
fn random_uuid() -> String {
    let bits = (fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62)) | (4 << 76) | (2 << 62);
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
