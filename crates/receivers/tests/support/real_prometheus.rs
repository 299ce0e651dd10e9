//! A Prometheus from elsewhere, such as Debian's, on the machine that runs the tests.

/// Its process, which ends with this.
pub struct Real {
    process: std::process::Child,
    pub port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Real {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to keep.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Real {
    /// `more` are arguments, `jobs` what its configuration has beside an interval. `None`, audibly, where there is no Prometheus.
    pub fn start(more: &[&str], jobs: &str) -> Option<Real> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, format!("global: {{ scrape_interval: 1m }}\n{jobs}")).unwrap();
        // It cannot say which port it was given, so it is told one that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let started = std::process::Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=error")
            .args(more)
            .stdout(std::process::Stdio::null())
            .spawn();
        match started {
            Ok(process) => Some(Real {
                process,
                port,
                _folder: folder,
            }),
            Err(_) => {
                eprintln!("skipped: prometheus is not installed");
                None
            }
        }
    }
}
