//! `xennet run` and `xennet ssh` with everything real: daemons as processes, a guest under QEMU, the stock ssh.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod market;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use market::Market;

/// The job writes thirty lines to either output, slowly. In the middle of it the node's daemon is killed and started again:
/// the machine, the job and the lease go on, and no line is lost or doubled.
#[test]
fn a_job_outlives_the_kill_of_the_nodes_daemon() {
    let mut market = Market::open();
    let here = market.dir.path().join("here");
    fs::create_dir_all(here.join("tree/deep")).unwrap();
    fs::write(here.join("in.txt"), "c\na\nb\n").unwrap();
    fs::write(here.join("tree/deep/leaf"), [7; 100_000]).unwrap();
    let script = "sort in.txt > out.txt; cp -r t results; for i in $(seq 30); do echo line $i; echo error $i >&2; sleep 0.5; done; exit 7";
    let mut job = market
        .xennet(&["run", "--in", "in.txt", "--in", "tree:t", "--out", "out.txt", "--out", "results:back", "--", "sh", "-c", script])
        .current_dir(&here)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = job.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    let mut lines = Vec::new();
    for line in BufReader::new(job.stdout.take().unwrap()).lines() {
        lines.push(line.unwrap());
        if lines.len() == 10 {
            market.kill_node();
            market.start_node();
        }
    }
    let code = job.wait().unwrap().code();
    let errors = errors.join().unwrap();
    assert_eq!(code, Some(7), "{errors}");
    let counted = |word: &str| (1..=30).map(|i| format!("{word} {i}")).collect::<Vec<_>>();
    assert_eq!(lines, counted("line"), "{errors}");
    let job_errors: Vec<&str> = errors.lines().filter(|line| line.starts_with("error ")).collect();
    assert_eq!(job_errors, counted("error"));
    assert_eq!(fs::read_to_string(here.join("out.txt")).unwrap(), "a\nb\nc\n");
    assert_eq!(fs::read(here.join("back/deep/leaf")).unwrap(), [7; 100_000]);

    // `run` started the publisher's daemon, so it has ended it. What both sides wrote down agrees.
    assert!(market.ask(&["status"]).contains("no daemon runs"));
    let ours: serde_json::Value = serde_json::from_str(&market.ask(&["leases", "--json"])).unwrap();
    let theirs: serde_json::Value = serde_json::from_str(&market.ask_node(&["leases", "--json"])).unwrap();
    let ours = &ours[0];
    let theirs = theirs.as_array().unwrap().iter().find(|lease| lease["lease"] == ours["lease"]).unwrap();
    for side in [ours, theirs] {
        assert_eq!(side["stage"], "settled", "{side}");
        assert!(side["totals"]["payments"].as_u64().unwrap() >= 2, "{side}");
    }
    assert_eq!(ours["totals"]["total_sat"], theirs["totals"]["total_sat"]);
    assert_eq!(ours["close_txid"], theirs["close_txid"]);
    market.ask(&["stop"]);
}

#[test]
fn a_kept_lease_is_entered_by_the_stock_ssh_and_closed() {
    let market = Market::open();
    let output = market.xennet(&["run", "--keep", "--", "no-such-command"]).output().unwrap();
    assert_eq!(output.status.code(), Some(127), "{}", String::from_utf8_lossy(&output.stderr));
    let leases: serde_json::Value = serde_json::from_str(&market.ask(&["leases", "--open", "--json"])).unwrap();
    let lease = leases[0]["lease"].as_str().unwrap();

    // Quotes and spaces arrive as they were typed, and the exit code comes back.
    let output = market.xennet(&["ssh", &lease[..6], "--", "sh", "-c", "echo \"$0\"; exit 5", "it's  here"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "it's  here\n", "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(5));

    // A banner of SSH is what the pipe leads to.
    let output = market.xennet(&["pipe", lease]).stdin(Stdio::null()).output().unwrap();
    assert!(output.stdout.starts_with(b"SSH-2.0-"), "{}", String::from_utf8_lossy(&output.stderr));

    a_web_server_in_the_machine_is_reached_through_a_forwarded_port(&market, lease);
    the_machine_reaches_nothing(&market, lease);

    let closed = market.ask(&["close", lease]);
    assert!(closed.contains("settled"), "{closed}");
    assert!(market.ask(&["ledger", lease]).contains("settled"));
    let refused = market.xennet(&["ssh", lease]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    market.ask(&["stop"]);
}

fn a_web_server_in_the_machine_is_reached_through_a_forwarded_port(market: &Market, lease: &str) {
    let serve = "mkdir -p /data/www; seq 100000 > /data/www/numbers; httpd -p 80 -h /data/www </dev/null >/dev/null 2>&1";
    market.ask(&["ssh", lease, "--", "sh", "-c", serve]);
    let mut forward = market.xennet(&["forward", &lease[..6], "0:80", "0:81", "--json"]);
    let mut forward = forward.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = serde_json::Deserializer::from_reader(forward.stdout.take().unwrap()).into_iter::<serde_json::Value>();
    let doors = said.next().unwrap().unwrap();
    assert_eq!((&doors[0]["port"], &doors[1]["port"]), (&80.into(), &81.into()), "{doors}");
    let fetch = |door: usize, path: &str| {
        let address = doors[door]["address"].as_str().unwrap();
        assert!(address.starts_with("127.0.0.1:"), "{address}");
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(format!("GET /{path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    let numbers: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    // Several at once, as a browser does.
    std::thread::scope(|scope| {
        for fetched in [0; 3].map(|_| scope.spawn(|| fetch(0, "numbers").unwrap())) {
            let answer = fetched.join().unwrap();
            assert!(answer.starts_with("HTTP/1.") && answer.ends_with(&numbers), "{} bytes", answer.len());
        }
    });
    // Where nobody listens the connection ends at once, and whoever forwards is told.
    assert!(fetch(1, "").is_ok_and(|answer| answer.is_empty()) || fetch(1, "").is_err());
    market::interrupt(&forward);
    assert_eq!(forward.wait().unwrap().code(), Some(0));
    let mut notes = String::new();
    forward.stderr.take().unwrap().read_to_string(&mut notes).unwrap();
    assert!(notes.contains("nothing answers on port 81 of the machine"), "{notes}");
}

/// The default policy: the node's own ports, its network and the internet are out of reach, by name too.
fn the_machine_reaches_nothing(market: &Market, lease: &str) {
    let node = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    node.set_nonblocking(true).unwrap();
    let port = node.local_addr().unwrap().port();
    let knock = format!(
        "ping -c 1 -w 5 10.0.2.2 >/dev/null && echo gateway; \
         for at in '10.0.2.2 {port}' '127.0.0.1 {port}' '169.254.169.254 80' '192.168.0.1 80' '1.1.1.1 443' '9.9.9.9 53'; do \
         nc -w 5 $at </dev/null >/dev/null 2>&1 && echo open $at; done; nslookup xennet.org 10.0.2.3 >/dev/null 2>&1 && echo named; true"
    );
    assert_eq!(market.ask(&["ssh", lease, "--", "sh", "-c", &knock]), "gateway\n");
    assert!(node.accept().is_err());
    let leases: serde_json::Value = serde_json::from_str(&market.ask_node(&["leases", "--open", "--json"])).unwrap();
    let network = &leases[0]["network"];
    assert_eq!((&network["outbound"], &network["opened"]), (&"none".into(), &0.into()), "{network}");
    assert!(network["refused"].as_u64() >= Some(4) && network["came_in"].as_u64() >= Some(4), "{network}");
    // Three times the numbers went out.
    assert!(network["out_bytes"].as_u64() > Some(1_700_000) && network["in_bytes"].as_u64() > Some(10_000), "{network}");
}

#[test]
fn ctrl_c_ends_the_lease_and_settles() {
    let market = Market::open();
    let mut job = market.xennet(&["run", "--", "sh", "-c", "echo begun; sleep 1000"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut begun = String::new();
    BufReader::new(job.stdout.take().unwrap()).read_line(&mut begun).unwrap();
    assert_eq!(begun, "begun\n");
    market::interrupt(&job);
    assert_eq!(job.wait().unwrap().code(), Some(130));
    let leases: serde_json::Value = serde_json::from_str(&market.ask(&["leases", "--json"])).unwrap();
    assert_eq!(leases[0]["stage"], "settled", "{leases}");
    market.ask(&["stop"]);
}
