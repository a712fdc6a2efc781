//! Flags over file over defaults; every error says where, which field, which value, and what would be right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::time::Duration;

use bitcoin::Network;
use clap::Parser;
use xennet_chain::BitcoindAuth;
use xennet_identity::Role;
use xennetd::config::{ChainSettings, Config, ConfigArgs, ConfigError, network_name, noted_role};

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    args: ConfigArgs,
}

/// Loads with this text as `xennet.toml` and these flags.
fn load(text: &str, flags: &[&str]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("xennet.toml"), text).unwrap();
    let words = ["program", "--datadir", dir.path().to_str().unwrap()].into_iter().chain(flags.iter().copied());
    Config::load(&Program::parse_from(words).args, Role::Publisher)
}

/// The message for a wrong file, without the path of the directory.
fn message(text: &str) -> String {
    let message = load(text, &[]).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    message.split_once("xennet.toml, ").unwrap().1.to_string()
}

#[test]
fn without_a_file_the_defaults_fit_one_machine() {
    let publisher = Config::new(Role::Publisher, "/data".into());
    assert_eq!(publisher.overlay.listen, ["/ip4/127.0.0.1/tcp/28750".parse().unwrap()]);
    assert_eq!(publisher.tunnel.listen, "127.0.0.1:28722".parse().unwrap());
    let node = Config::new(Role::Node, "/data".into());
    assert!(node.overlay.listen.is_empty(), "a node listens on no port");
    assert_eq!(node.overlay.bootstrap, publisher.overlay.listen);
    assert_eq!(node.chain, publisher.chain, "daemons of one user meet on one chain");
}

#[test]
fn the_file_sets_every_field() {
    let config = load(
        r#"
log = "warn,xennetd=debug"
[chain]
source = "embedded"
dir = "/shared/chain"
block_interval_s = 2
[overlay]
listen = ["/ip4/0.0.0.0/tcp/4000"]
bootstrap = ["/ip4/203.0.113.7/tcp/28750", "/ip6/::1/tcp/1"]
[publisher]
listen = "0.0.0.0:22"
announce = "203.0.113.7:2222"
budget_sat = 100_000
[node]
patience_s = 45
[node.network]
outbound = "web"
allow = ["192.168.7.0/24"]
names = "9.9.9.9:53"
connections = 64
opened_per_s = 9
out_kbit_s = 8000
[limits]
cores = 4
memory_mib = 2048
disk_mib = 10_000
persistent_mib = 0
bandwidth_kbit_s = 8000
[policy]
min_task_work_bits = 20
max_interval = 60
[policy.floor]
cpu_msat_per_ghz_hour = 7
"#,
        &[],
    )
    .unwrap();
    assert_eq!(config.log, "warn,xennetd=debug");
    assert_eq!(config.chain, ChainSettings::Embedded { dir: "/shared/chain".into(), block_interval: Duration::from_secs(2) });
    assert_eq!(config.overlay.listen.len(), 1);
    assert_eq!(config.overlay.bootstrap.len(), 2);
    assert_eq!(config.tunnel.announce, Some("203.0.113.7:2222".parse().unwrap()));
    assert_eq!(config.budget_sat, Some(100_000));
    assert_eq!(config.patience, Duration::from_secs(45));
    let network = &config.guest_network;
    assert_eq!(network.policy.to_string(), "web, and 192.168.7.0/24");
    assert_eq!(network.names, Some("9.9.9.9:53".parse().unwrap()));
    assert_eq!((network.limits.connections, network.limits.opened_per_s), (64, 9));
    assert_eq!((network.rates.up_bytes_per_s, network.rates.down_bytes_per_s), (Some(1_000_000), None));
    assert_eq!((config.limits.cores, config.limits.persistent_mib), (Some(4), Some(0)));
    assert_eq!(config.policy.min_task_work_bits, 20);
    assert_eq!(config.policy.max_interval, Duration::from_secs(60));
    assert_eq!(config.policy.floor.cpu_msat_per_ghz_hour, 7);
    // What the file does not say keeps its default, also inside a table.
    let default = Config::new(Role::Publisher, "/".into()).policy;
    assert_eq!(config.policy.floor.memory_msat_per_gib_hour, default.floor.memory_msat_per_gib_hour);
    assert_eq!(config.policy.max_lease, default.max_lease);
}

#[test]
fn flags_win_over_the_file() {
    let text = "log = \"warn\"\n[chain]\nblock_interval_s = 2\n[overlay]\nlisten = [\"/ip4/0.0.0.0/tcp/1\"]\n";
    let flags = ["--log", "debug", "--block-interval", "9", "--overlay-listen", "none", "--tunnel-listen", "127.0.0.1:0"];
    let config = load(text, &flags).unwrap();
    assert_eq!(config.log, "debug");
    let ChainSettings::Embedded { block_interval, .. } = config.chain else { panic!("{:?}", config.chain) };
    assert_eq!(block_interval, Duration::from_secs(9));
    assert!(config.overlay.listen.is_empty());
    assert_eq!(config.tunnel.listen.port(), 0);
}

#[test]
fn a_relative_chain_directory_is_meant_from_the_data_directory() {
    let config = load("[chain]\ndir = \"../chain\"\n", &[]).unwrap();
    let ChainSettings::Embedded { dir, .. } = &config.chain else { panic!("{:?}", config.chain) };
    assert_eq!(*dir, config.data_dir.join("../chain"));
}

#[test]
fn nobody_is_told_to_dial_himself() {
    let config = load("", &["--bootstrap", "/ip4/127.0.0.1/tcp/28750", "--bootstrap", "/ip4/127.0.0.1/tcp/9"]).unwrap();
    assert_eq!(config.overlay.bootstrap, ["/ip4/127.0.0.1/tcp/9".parse().unwrap()]);
}

#[test]
fn an_unknown_field_is_refused_with_those_there_are() {
    assert_eq!(
        message("\n[chain]\nblock_intervall = 3\n"),
        "line 3: chain.block_intervall: there is no such field; in [chain] there may be: source, network, dir, block_interval_s"
    );
    assert_eq!(
        message("[chian]\n"),
        "line 1: chian: there is no such field; at the top there may be: log, chain, wallet, overlay, publisher, node, limits, policy"
    );
    assert!(message("[policy]\nflor = 1\n").starts_with("line 2: policy.flor = 1: there is no such field; in [policy] there may be: "));
    assert!(message("[policy.floor]\ncpu = 1\n").contains("policy.floor"));
}

#[test]
fn a_wrong_value_is_shown_with_what_would_be_right() {
    assert_eq!(
        message("[chain]\nblock_interval_s = 0\n"),
        "line 2: chain.block_interval_s = 0: it is out of bounds; write seconds between blocks, 1 to 3600"
    );
    assert_eq!(
        message("[limits]\n\ncores = \"two\"\n"),
        "line 3: limits.cores = \"two\": invalid type: string \"two\", expected u64; write cores, 1 to 1024"
    );
    assert_eq!(
        message("[publisher]\nlisten = \"localhost\"\n"),
        "line 2: publisher.listen = \"localhost\": it cannot be read (invalid socket address syntax); \
         write an address and a port, such as \"0.0.0.0:28722\""
    );
    assert!(
        message("[overlay]\nlisten = [\"127.0.0.1:1\"]\n").starts_with("line 2: overlay.listen = [\"127.0.0.1:1\"]: \"127.0.0.1:1\": ")
    );
    assert_eq!(
        message("[node.network]\noutbound = \"all\"\n"),
        "line 2: node.network.outbound = \"all\": it cannot be read (there is no such profile); \
         write \"none\", \"web\" or \"open-internet\""
    );
    assert!(message("[node.network]\nallow = [\"192.168.7.1/24\"]\n").contains("\"192.168.7.1/24\": the address has bits behind"));
    assert!(message("[node.network]\nconnections = 7\n").contains("it is out of bounds; write connections of a guest at once, 8 to 4096"));
    assert!(message("[node.network]\nin_kbit_s = 1\n").contains("write kbit/s of one guest, 64 to 100000000"));
    assert!(message("[policy]\nmin_task_work_bits = 1000\n").starts_with("line 2: policy.min_task_work_bits = 1000: "));
    assert!(message("[chain]\nsource = \"none\"\n").contains("write \"embedded\""));
    assert!(message("log = \"=====\"\n").starts_with("line 1: log = \"=====\": it cannot be read"));
    assert!(message("chain = 3\n").starts_with("line 1: chain = 3: it must be a section"));
}

#[test]
fn a_line_that_is_no_toml_is_shown() {
    assert_eq!(
        message("[chain]\nblock_interval_s 3\n").split(';').next(),
        Some("line 2: block_interval_s 3: key with no value, expected `=`")
    );
    assert!(message("log = \"warn\n").starts_with("line 1: "));
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    let error = load("", &["--config", "/nowhere/xennet.toml"]).unwrap_err();
    assert_eq!(error.to_string(), "cannot open /nowhere/xennet.toml");
}

#[test]
fn a_wrong_flag_is_named() {
    let error = load("", &["--overlay-listen", "localhost"]).unwrap_err().to_string();
    assert!(error.starts_with("--overlay-listen: localhost: it is no address"), "{error}");
    let error = load("", &["--log", "===="]).unwrap_err().to_string();
    assert!(error.starts_with("--log: ====: "), "{error}");
}

#[test]
fn a_daemon_in_the_background_is_given_the_same_flags() {
    let words = [
        "program",
        "--datadir",
        "/d",
        "--chain-dir",
        "/c",
        "--bootstrap",
        "/ip4/127.0.0.1/tcp/9",
        "--log",
        "warn",
        "--overlay-listen",
        "none",
    ];
    let args = Program::parse_from(words).args;
    let again: Vec<_> = ["program".into()].into_iter().chain(args.to_args().unwrap()).collect();
    let again = Program::parse_from(again).args;
    assert_eq!(format!("{args:?}"), format!("{again:?}"));
}

#[test]
fn the_side_of_a_new_data_directory_is_not_known() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(noted_role(dir.path()).unwrap(), None);
    fs::write(dir.path().join("role"), "node\n").unwrap();
    assert_eq!(noted_role(dir.path()).unwrap(), Some(Role::Node));
    fs::write(dir.path().join("role"), "").unwrap();
    let message = noted_role(dir.path()).unwrap_err().to_string();
    assert!(message.contains("role must hold the word publisher or node"), "{message}");
}

#[test]
fn the_chain_a_data_directory_is_on_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("chain-dir"), "/shared/chain\n").unwrap();
    let words = ["program", "--datadir", dir.path().to_str().unwrap()];
    let config = Config::load(&Program::parse_from(words).args, Role::Publisher).unwrap();
    let ChainSettings::Embedded { dir: chain, .. } = config.chain else { panic!("{:?}", config.chain) };
    assert_eq!(chain.to_str(), Some("/shared/chain"));
}

#[test]
fn one_line_chooses_a_full_node_and_the_rest_has_defaults() {
    let config = load("[chain]\nsource = \"bitcoind\"\n", &[]).unwrap();
    let ChainSettings::Bitcoind { network, url, auth: BitcoindAuth::CookieFile(cookie) } = config.chain else { panic!("a cookie") };
    assert_eq!((network, url.as_str()), (Network::Bitcoin, "http://127.0.0.1:8332"));
    assert!(cookie.ends_with(".bitcoin/.cookie"), "{}", cookie.display());
    for (name, port, dir) in [("signet", 38332, "signet"), ("testnet4", 48332, "testnet4"), ("regtest", 18443, "regtest")] {
        let config = load(&format!("[chain]\nsource = \"bitcoind\"\nnetwork = \"{name}\"\n"), &[]).unwrap();
        let ChainSettings::Bitcoind { network, url, auth: BitcoindAuth::CookieFile(cookie) } = config.chain else { panic!("a cookie") };
        assert_eq!((network_name(network), url), (name, format!("http://127.0.0.1:{port}")));
        assert!(cookie.ends_with(format!(".bitcoin/{dir}/.cookie")), "{}", cookie.display());
    }
}

#[test]
fn a_public_network_needs_no_server() {
    for (text, network) in [
        ("network = \"signet\"\n", Network::Signet),
        ("source = \"light\"\n", Network::Bitcoin),
        ("source = \"light\"\nnetwork = \"testnet4\"\n", Network::Testnet4),
    ] {
        let config = load(&format!("[chain]\n{text}"), &[]).unwrap();
        let dir = config.data_dir.join("light");
        assert_eq!(config.chain, ChainSettings::Light { network, dir, peers: Vec::new() });
    }
    let own = load("[chain]\nnetwork = \"signet\"\npeers = [\"127.0.0.1:38333\", \"[::1]:38333\"]\n", &[]).unwrap();
    let ChainSettings::Light { peers, .. } = own.chain else { panic!("{:?}", own.chain) };
    assert_eq!(peers.len(), 2);
    assert_eq!(
        message("[chain]\nsource = \"light\"\nnetwork = \"regtest\"\n"),
        "line 1: chain.peers: a regtest has no seeds to find peers by; name at least one, such as [\"127.0.0.1:18444\"]"
    );
    assert_eq!(
        message("[chain]\nnetwork = \"signet\"\npeers = [\"example.org\"]\n"),
        "line 3: chain.peers = [\"example.org\"]: \"example.org\": invalid socket address syntax; \
         write a list of addresses with ports, such as [\"203.0.113.7:8333\"]"
    );
}

#[test]
fn two_lines_choose_an_electrum_server() {
    let config = load("[chain]\nsource = \"electrum\"\nurl = \"ssl://electrum.example.org:50002\"\n", &[]).unwrap();
    let (dir, server) = (config.data_dir.join("electrum"), "ssl://electrum.example.org:50002".parse().unwrap());
    assert_eq!(config.chain, ChainSettings::Electrum { network: Network::Bitcoin, dir, server });
    let own = load("[chain]\nsource = \"electrum\"\nnetwork = \"regtest\"\nurl = \"tcp://127.0.0.1:50001\"\n", &[]).unwrap();
    assert_eq!((own.chain.network(), own.chain.block_s()), (Network::Regtest, 600));
    let remedy = "write it as \"ssl://HOST:50002\", or \"tcp://127.0.0.1:50001\" on this machine";
    for (text, problem) in [
        ("", "line 1: chain.url: an Electrum server has to be named"),
        (
            "url = \"http://127.0.0.1:8332\"\n",
            "line 3: chain.url = \"http://127.0.0.1:8332\": it cannot be read (it begins neither with ssl:// nor with tcp://)",
        ),
        ("url = \"ssl://example.org\"\n", "line 3: chain.url = \"ssl://example.org\": it cannot be read (it has no port)"),
        (
            "url = \"ssl://example.org:0\"\n",
            "line 3: chain.url = \"ssl://example.org:0\": it cannot be read (its port is no number from 1 to 65535)",
        ),
        ("url = \"tcp://:50001\"\n", "line 3: chain.url = \"tcp://:50001\": it cannot be read (its host is neither a name nor an address)"),
    ] {
        assert_eq!(message(&format!("[chain]\nsource = \"electrum\"\n{text}")), format!("{problem}; {remedy}"));
    }
    assert_eq!(
        message("[chain]\nsource = \"electrum\"\nurl = \"ssl://h:1\"\npeers = []\n"),
        "line 4: chain.peers: there is no such field; in [chain] there may be: source, network, url"
    );
}

#[test]
fn a_full_node_elsewhere_has_a_user_and_a_file_with_the_password() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, "s3cret\n").unwrap();
    let place = "[chain]\nsource = \"bitcoind\"\nnetwork = \"signet\"\nurl = \"http://192.0.2.1:38332\"\nuser = \"xennet\"\n";
    let config = load(&format!("{place}password_file = {:?}\n", file.display().to_string()), &[]).unwrap();
    let auth = BitcoindAuth::UserPassword { user: "xennet".into(), password: "s3cret".into() };
    assert_eq!(config.chain, ChainSettings::Bitcoind { network: Network::Signet, url: "http://192.0.2.1:38332".into(), auth });
    assert_eq!(message(place), "line 1: chain.user: there is no password to it; write password_file = \"…\" as well");
}

#[test]
fn what_does_not_go_with_the_source_is_refused() {
    for (text, expected) in [
        (
            "source = \"electrum2\"\n",
            "line 2: chain.source = \"electrum2\": there is no such source; write \"embedded\", \"bitcoind\", \"light\" or \"electrum\"",
        ),
        (
            "source = \"embedded\"\nnetwork = \"signet\"\n",
            "line 3: chain.network = \"signet\": the embedded chain is a regtest of its own; leave it out, or choose another source",
        ),
        (
            "source = \"bitcoind\"\nnetwork = \"testnet\"\n",
            "line 3: chain.network = \"testnet\": there is no such network; \
             write one of \"mainnet\", \"testnet4\", \"signet\", \"regtest\"",
        ),
        (
            "source = \"bitcoind\"\nurl = \"127.0.0.1:8332\"\n",
            "line 3: chain.url = \"127.0.0.1:8332\": it is not of the form http://HOST:PORT; write it as \"http://127.0.0.1:8332\"",
        ),
        (
            "source = \"bitcoind\"\ndir = \"/chain\"\n",
            "line 3: chain.dir: there is no such field; in [chain] there may be: source, network, url, cookie, user, password_file",
        ),
    ] {
        assert_eq!(message(&format!("[chain]\n{text}")), expected);
    }
    let wrong = load("[chain]\nsource = \"bitcoind\"\n", &["--block-interval", "9"]).unwrap_err().to_string();
    assert_eq!(
        wrong,
        "--block-interval: 9: it is for the embedded chain, and [chain] names another source; leave it out, or write source = \"embedded\""
    );
}
