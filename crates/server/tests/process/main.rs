//! Tests of the real binary as a process of its own, from outside: sockets, signals, other people's clients.

mod aws;
mod clients;
mod command_line;
mod configuration;
mod connectors;
mod expired;
mod filelog;
mod jaeger;
mod kill;
mod owners;
mod peers;
mod reload;
mod replay;
mod running;
mod scraping;
mod status_page;
mod tail_sampling;
