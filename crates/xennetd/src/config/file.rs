//! `xennet.toml`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use xennet_gateway::Policy;
use xennet_market::NodePolicy;

use super::section::{LOG_HINT, Section, Source, check_log};
use super::{Config, ConfigError, chain};

/// The file's text; `None` if it need not be there and is not.
pub(super) fn read(path: &Path, must_exist: bool) -> Result<Option<String>, ConfigError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound && !must_exist => Ok(None),
        Err(source) => Err(ConfigError::File { path: path.to_path_buf(), source }),
    }
}

/// Sets what the file says.
pub(super) fn apply(config: &mut Config, path: &Path, text: &str) -> Result<(), ConfigError> {
    let mut root = Section::root(Source { path, text })?;
    if let Some(field) = root.field("log") {
        let filter: String = field.value(LOG_HINT)?;
        config.log = check_log(&filter).map_err(|problem| field.wrong(problem, LOG_HINT))?;
    }
    if let Some(section) = root.section("chain")? {
        chain::apply(config, section)?;
    }
    if let Some(section) = root.section("wallet")? {
        wallet(config, section)?;
    }
    if let Some(section) = root.section("overlay")? {
        overlay(config, section)?;
    }
    if let Some(section) = root.section("publisher")? {
        publisher(config, section)?;
    }
    if let Some(section) = root.section("node")? {
        node(config, section)?;
    }
    if let Some(section) = root.section("limits")? {
        limits(config, section)?;
    }
    if let Some(section) = root.section("policy")? {
        policy(config, section)?;
    }
    root.finish()
}

fn wallet(config: &mut Config, mut section: Section<'_>) -> Result<(), ConfigError> {
    if let Some(field) = section.field("passphrase_file") {
        let given: PathBuf = field.value("write the path of a file that holds the passphrase in \"quotes\"")?;
        config.wallet.passphrase_file = Some(config.data_dir.join(given));
    }
    if let Some(field) = section.field("max_feerate_sat_vb") {
        config.wallet.max_feerate_sat_per_kvb = field.number(1..=10_000, "satoshi per virtual byte")? * 1_000;
    }
    section.finish()
}

fn overlay(config: &mut Config, mut section: Section<'_>) -> Result<(), ConfigError> {
    let hint = "write a list such as [\"/ip4/203.0.113.7/tcp/28750\"], or [] for none";
    if let Some(field) = section.field("listen") {
        config.overlay.listen = field.parsed_list(hint)?;
    }
    if let Some(field) = section.field("bootstrap") {
        config.overlay.bootstrap = field.parsed_list(hint)?;
    }
    section.finish()
}

fn publisher(config: &mut Config, mut section: Section<'_>) -> Result<(), ConfigError> {
    if let Some(field) = section.field("listen") {
        config.tunnel.listen = field.parsed("write an address and a port, such as \"0.0.0.0:28722\"")?;
    }
    if let Some(field) = section.field("announce") {
        config.tunnel.announce = Some(field.parsed("write an address and a port, such as \"203.0.113.7:28722\"")?);
    }
    if let Some(field) = section.field("budget_sat") {
        config.budget_sat = Some(field.number(1..=MAX_MONEY_SAT, "satoshi")?);
    }
    section.finish()
}

fn node(config: &mut Config, mut section: Section<'_>) -> Result<(), ConfigError> {
    if let Some(field) = section.field("patience_s") {
        config.patience = Duration::from_secs(field.number(1..=86_400, "seconds to wait for a publisher that is out of reach")?);
    }
    if let Some(section) = section.section("network")? {
        guest_network(config, section)?;
    }
    section.finish()
}

fn guest_network(config: &mut Config, mut section: Section<'_>) -> Result<(), ConfigError> {
    let network = &mut config.guest_network;
    let mut policy = Policy::default();
    if let Some(field) = section.field("outbound") {
        policy.profile = field.parsed("write \"none\", \"web\" or \"open-internet\"")?;
    }
    if let Some(field) = section.field("allow") {
        policy.allow = field.parsed_list("write a list of networks such as [\"192.168.7.0/24\"], or [] for none")?;
    }
    network.policy = Arc::new(policy);
    if let Some(field) = section.field("names") {
        network.names = Some(field.parsed("write a name server's address and port, such as \"9.9.9.9:53\"")?);
    }
    if let Some(field) = section.field("connections") {
        network.limits.connections = usize::try_from(field.number(8..=4_096, "connections of a guest at once")?).unwrap_or(usize::MAX);
    }
    if let Some(field) = section.field("opened_per_s") {
        network.limits.opened_per_s = field.number(1..=10_000, "flows that a guest may open in a second")?;
    }
    let rates = &mut network.rates;
    for (key, rate) in [("out_kbit_s", &mut rates.up_bytes_per_s), ("in_kbit_s", &mut rates.down_bytes_per_s)] {
        if let Some(field) = section.field(key) {
            *rate = Some(field.number(64..=100_000_000, "kbit/s of one guest")? * 125);
        }
    }
    section.finish()
}

/// All bitcoins there will ever be, satoshi.
const MAX_MONEY_SAT: u64 = 2_100_000_000_000_000;

fn limits(config: &mut Config, mut section: Section<'_>) -> Result<(), ConfigError> {
    if let Some(field) = section.field("cores") {
        config.limits.cores = u16::try_from(field.number(1..=1024, "cores")?).ok();
    }
    let limits = &mut config.limits;
    for (key, what, limit) in [
        ("memory_mib", "MiB", &mut limits.memory_mib),
        ("disk_mib", "MiB", &mut limits.disk_mib),
        ("persistent_mib", "MiB", &mut limits.persistent_mib),
        ("image_mib", "MiB", &mut limits.image_mib),
        ("image_store_mib", "MiB", &mut limits.image_store_mib),
        ("bandwidth_kbit_s", "kbit/s", &mut limits.bandwidth_kbit_s),
    ] {
        if let Some(field) = section.field(key) {
            *limit = u32::try_from(field.number(0..=u64::from(u32::MAX), what)?).ok();
        }
    }
    section.finish()
}

/// The policy is the market's own type. Each field given replaces its default and is tried alone, so that an error is its own.
fn policy(config: &mut Config, section: Section<'_>) -> Result<(), ConfigError> {
    let mut whole = serde_json::to_value(NodePolicy::default()).unwrap_or_default();
    for (key, field) in section.rest() {
        let known = whole.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
        let Some(default) = whole.get(&key).cloned() else {
            let remedy = format!("in [policy] there may be: {}", known.join(", "));
            return Err(field.wrong("there is no such field", &remedy));
        };
        let hint = format!("the default is {default}");
        let mut tried = default;
        merge(&mut tried, field.value(&hint)?).map_err(|unknown| field.wrong(format!("there is no field {unknown} in it"), &hint))?;
        if let Some(slot) = whole.get_mut(&key) {
            *slot = tried;
        }
        config.policy = serde_json::from_value(whole.clone()).map_err(|e| field.wrong(e.to_string(), &hint))?;
    }
    Ok(())
}

/// Puts what was given over the defaults, table by table; an unknown name comes back as the error.
fn merge(into: &mut Value, given: Value) -> Result<(), String> {
    match (into, given) {
        (Value::Object(into), Value::Object(given)) => {
            for (key, value) in given {
                match into.get_mut(&key) {
                    Some(slot) => merge(slot, value)?,
                    None => return Err(key),
                }
            }
            Ok(())
        }
        (into, given) => {
            *into = given;
            Ok(())
        }
    }
}
