//! Where the services' binaries are: beside this one, and built first when cargo runs us from the source tree.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

use super::show;

/// One of the binaries; where it is, the others are.
const PROBE: &str = "demo-api-gateway";

/// The folder that holds all of them.
pub async fn ready() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program's own file")?;
    let folder = own
        .parent()
        .context("this program's file lies in no folder")?
        .to_owned();
    // `cargo run` says where it runs us from; what the sources say may be newer than what lies there.
    if let (Some(cargo), Some(manifest)) = (std::env::var_os("CARGO"), std::env::var_os("CARGO_MANIFEST_DIR")) {
        build(&PathBuf::from(cargo), Path::new(&manifest), &folder).await?;
    }
    ensure!(
        folder.join(PROBE).exists(),
        "the demo's services are not beside this program (no {PROBE} in {}); in the source tree run `cargo run --release -- demo`",
        folder.display()
    );
    Ok(folder)
}

async fn build(cargo: &Path, manifest: &Path, folder: &Path) -> Result<()> {
    show::step("services", "building (the first time takes a few minutes)");
    let mut command = Command::new(cargo);
    command.args(["build", "--locked", "--package", "demo", "--bins", "--manifest-path"]);
    command.arg(manifest.join("Cargo.toml")).stdin(Stdio::null());
    if folder.ends_with("release") {
        command.arg("--release");
    }
    let status = command
        .status()
        .await
        .with_context(|| format!("running {}", cargo.display()))?;
    if !status.success() {
        bail!("building the demo's services ended with {status}");
    }
    Ok(())
}
