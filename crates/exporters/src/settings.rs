//! Why: what every exporter's settings become when the process starts is one contract, so that a new exporter is its own file and one line in the table
//! of the program.

use std::error::Error;

use net::{Collision, Doors};
use pipeline::sending::Sending;
use pipeline::{Budget, Exporter, Sink};

use crate::aws::credentials::Surroundings;
use crate::awscloudwatchlogs::CloudWatchLogs;
use crate::awsemf::AwsEmf;
use crate::debug::Debug;
use crate::file::File;
use crate::jaeger::Jaeger;
use crate::kafka::Kafka;
use crate::loadbalancing::LoadBalancing;
use crate::loki::Loki;
use crate::otlp::Otlp;
use crate::otlphttp::OtlpHttp;
use crate::prometheus::Prometheus;
use crate::prometheusremotewrite::RemoteWrite;
use crate::{
    awscloudwatchlogs, awsemf, debug, file, jaeger, kafka, loadbalancing, loki, otlp, otlphttp, prometheus,
    prometheusremotewrite,
};

/// Why an exporter cannot be opened, in words for whoever wrote the configuration.
pub type OpenError = Box<dyn Error + Send + Sync>;

/// What an exporter may use of the process.
pub struct Opening<'a> {
    /// Its name in the configuration, `otlp` or `otlp/backend`.
    pub name: &'a str,
    /// For exporters that are asked rather than asking; the doors open later, all at once.
    pub doors: &'a mut Doors,
    /// Memory of the process; what an exporter keeps is taken from a child of it.
    pub budget: &'a Budget,
    /// What the process tells of itself at this address, for an exporter that serves a page there.
    pub beside: &'a mut dyn FnMut(&net::Endpoint) -> Option<prometheus::Beside>,
}

/// Settings that have been read and checked.
pub trait Settings: Send {
    /// Reads certificates and opens files; connects with the first request.
    fn open(self: Box<Self>, opening: &mut Opening<'_>) -> Result<(Sink, Sending), OpenError>;

    /// Takes its places on doors that will not open, so that two who want one are told before anything starts. Most exporters listen nowhere.
    fn claim(&self, name: &str, doors: &mut Doors) -> Result<(), Collision> {
        let _ = (name, doors);
        Ok(())
    }
}

fn sink(exporter: impl Exporter) -> Sink {
    Sink::Exporter(std::sync::Arc::new(exporter))
}

impl Settings for otlp::Config {
    fn open(self: Box<Self>, _: &mut Opening<'_>) -> Result<(Sink, Sending), OpenError> {
        Ok((sink(Otlp::new(&self)?), self.sending()))
    }
}

impl Settings for otlphttp::Config {
    fn open(self: Box<Self>, _: &mut Opening<'_>) -> Result<(Sink, Sending), OpenError> {
        Ok((sink(OtlpHttp::new(&self)?), self.sending()))
    }
}

impl Settings for jaeger::Config {
    fn open(self: Box<Self>, _: &mut Opening<'_>) -> Result<(Sink, Sending), OpenError> {
        Ok((sink(Jaeger::new(&self)?), self.sending()))
    }
}

impl Settings for kafka::Config {
    fn open(self: Box<Self>, _: &mut Opening<'_>) -> Result<(Sink, Sending), OpenError> {
        Ok((sink(Kafka::new(&self)?), self.sending()))
    }
}

impl Settings for loadbalancing::Config {
    fn open(self: Box<Self>, _: &mut Opening<'_>) -> Result<(Sink, Sending), OpenError> {
        Ok((sink(LoadBalancing::new(&self)?), loadbalancing::sending(&self)))
    }
}

impl Settings for loki::Config {
    fn open(self: Box<Self>, _: &mut Opening<'_>) -> Result<(Sink, Sending), OpenError> {
        Ok((sink(Loki::new(&self)?), self.sending()))
    }
}

impl Settings for awscloudwatchlogs::Config {
    fn open(self: Box<Self>, _: &mut Opening<'_>) -> Result<(Sink, Sending), OpenError> {
        let exporter = CloudWatchLogs::new(&self, Surroundings::of_process())?;
        Ok((sink(exporter), awscloudwatchlogs::how_sent(&self)))
    }
}

impl Settings for awsemf::Config {
    fn open(self: Box<Self>, _: &mut Opening<'_>) -> Result<(Sink, Sending), OpenError> {
        let exporter = AwsEmf::new(&self, Surroundings::of_process(), Box::new(std::io::stdout()))?;
        Ok((sink(exporter), awsemf::how_sent(&self)))
    }
}

impl Settings for debug::Config {
    fn open(self: Box<Self>, opening: &mut Opening<'_>) -> Result<(Sink, Sending), OpenError> {
        let debug = Debug::new(opening.name, *self, Box::new(std::io::stderr()));
        Ok((sink(debug), Sending::local()))
    }
}

impl Settings for file::Config {
    fn open(self: Box<Self>, _: &mut Opening<'_>) -> Result<(Sink, Sending), OpenError> {
        Ok((sink(File::open(*self)?), Sending::local()))
    }
}

impl Settings for prometheus::Config {
    fn open(self: Box<Self>, opening: &mut Opening<'_>) -> Result<(Sink, Sending), OpenError> {
        Ok((sink(Prometheus::mount(&self, opening)?), Sending::local()))
    }

    fn claim(&self, name: &str, doors: &mut Doors) -> Result<(), Collision> {
        prometheus::claim(self, name, doors)
    }
}

impl Settings for prometheusremotewrite::Config {
    fn open(self: Box<Self>, _: &mut Opening<'_>) -> Result<(Sink, Sending), OpenError> {
        Ok((sink(RemoteWrite::new(&self)?), prometheusremotewrite::sending(&self)))
    }
}
