//! Lists the built web pages (`ui/dist`) in a table that the binary includes. Without that folder the table is empty,
//! so that the server builds from its crates alone.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    let Some(crate_dir) = std::env::var_os("CARGO_MANIFEST_DIR") else {
        return;
    };
    let Some(out_dir) = std::env::var_os("OUT_DIR") else {
        return;
    };
    let dist = Path::new(&crate_dir).join("../../ui/dist");
    // A folder that appears later is a change as well: cargo looks at the missing path again.
    println!("cargo::rerun-if-changed={}", dist.display());
    let mut files = Vec::new();
    collect(&dist, &dist, &mut files);
    files.sort();
    let mut table = String::from("&[\n");
    for (name, path) in files {
        let _ = writeln!(
            table,
            "    ({name:?}, include_bytes!({:?})),",
            path.display().to_string()
        );
    }
    table.push_str("]\n");
    if let Err(error) = std::fs::write(Path::new(&out_dir).join("ui_files.rs"), table) {
        println!("cargo::error=cannot write the table of web pages: {error}");
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if let Ok(name) = path.strip_prefix(root) {
            files.push((name.display().to_string().replace('\\', "/"), path.clone()));
        }
    }
}
