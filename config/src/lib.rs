//! What a node is told: its `creditsync.toml`, and the standard datasets.
//!
//! The way of a file is [`raw`] (the shape that TOML has) to [`resolve`] (the
//! shape that the daemon uses: checked, with every default filled in).
//! [`edit`] changes one setting of a file that a person has written.
//! [`catalogue`] reads dataset files, among them the standard ones that are
//! built into the program. Whatever is wrong with a file is reported at once,
//! each mistake with its line, its key and the next step.
//!
//! Nothing here opens a file, reads the environment or knows a network: text
//! comes in, checked values go out.

pub mod catalogue;
mod document;
mod edit;
pub mod raw;
mod render;
pub mod resolve;
mod settings;

pub use document::{ConfigError, ConfigErrors};
pub use edit::with_upstream_addresses;
pub use resolve::{
    CertificateConfig, ImportConfig, InboxConfig, LogConfig, LogFormat, NodeConfig, PkiConfig,
    StoreConfig, SyncConfig, TlsConfig, Upstream, check_address, check_addresses,
    check_display_name, check_path, shown_display_name,
};
