//! In a process of its own, because it looks at all sockets of the process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod support;
use std::{collections::BTreeSet, fs};

use support::*;

/// Inodes of this process's TCP sockets in state LISTEN and of all its UDP sockets.
fn open_to_strangers() -> BTreeSet<String> {
    let ours: BTreeSet<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut open = BTreeSet::new();
    for (table, state) in [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")] {
        let lines = fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
        for line in lines.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[3] == state && ours.contains(fields[9]) {
                open.insert(format!("{table} {}", fields[9]));
            }
        }
    }
    open
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_only_dials_has_no_listening_socket() {
    let (mut listener, address) = listener(&[]).await;
    let before = open_to_strangers();
    assert_eq!(before.len(), 1, "the listener's own socket is seen: {before:?}");
    let dialer = dialer(&[&address]);
    listener.until_connected(&dialer).await;
    dialer.overlay.publish(b"task".to_vec()).unwrap();
    assert_eq!(listener.next_message().await, b"task");
    assert_eq!(open_to_strangers(), before);
    assert!(dialer.overlay.listen_addresses().is_empty());
    listener.overlay.stop().await;
    assert_eq!(open_to_strangers(), BTreeSet::new(), "stop() closes the socket before it returns");
}
