//! A lease from the announced task to the settled payment.

use std::time::Instant;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xennet_lease::LedgerKind;
use xennetd::control::LeaseStage;

use crate::books::{Opening, Settlement, ledger};
use crate::market::{Market, TaskToml, distinct};
use crate::processes;
use crate::stock_ssh::StockSsh;

/// Payments that make a lease a whole one.
const PAYMENTS: u32 = 20;

/// Everything at once: a command in the guest, stock `ssh` and `scp` with 100 MB both ways, no open port at the node's end, at
/// least 20 payments, a cooperative close, and books that agree.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_lease_is_used_paid_and_settled() {
    let market = Market::open().await;
    let opening = Opening::of(&market).await;
    let announced = Instant::now();
    let lease = market.rent(TaskToml { disk: "384 MiB", ..TaskToml::default() }.text()).await;
    eprintln!("from the task to the live lease: {:.1} s", announced.elapsed().as_secs_f64());

    // The computation is done in the guest, on bytes it was sent, and checked here.
    let input: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let said = market.run(lease, "sha256sum", &input).await;
    assert_eq!(said.split(' ').next(), Some(hex::encode(Sha256::digest(&input)).as_str()));
    assert_eq!(market.run(lease, "hostname", b"").await, format!("xennet-{lease}"));
    // By now the funding is in a block: from here on the guest never stands still.
    let used = Instant::now();
    let used_before_ms = Settlement::metered_ms(&market.node.lease(lease).await);

    nobody_listens(&market);
    files_go_both_ways(&market, lease).await;
    ports_are_reached_and_nothing_else(&market, lease).await;

    let view = market.publisher.lease(lease).await;
    let missing = PAYMENTS.saturating_sub(view.totals.unwrap().payments);
    market.pays(lease, missing.max(1)).await;
    let served_ms = used.elapsed().as_millis() as u64 + used_before_ms;
    market.publisher.close(lease).await;
    let settlement = opening.check(&market, lease).await;
    let lasted_ms = announced.elapsed().as_millis() as u64;

    // The meters against this test's own clock.
    let interval_ms = 3_000;
    for view in [&settlement.publisher, &settlement.node] {
        let metered_ms = Settlement::metered_ms(view);
        assert!(metered_ms + interval_ms >= served_ms && metered_ms <= lasted_ms, "{metered_ms} ms of {served_ms} to {lasted_ms}");
        assert!(view.totals.unwrap().payments >= PAYMENTS);
    }
    for daemon in [&market.publisher, &market.node] {
        let ledger = ledger(daemon, lease).await;
        let paid = ledger.iter().filter(|entry| entry.kind == LedgerKind::Paid);
        assert!(distinct(paid.map(|entry| entry.paid_sat)) >= PAYMENTS as usize);
        assert!(ledger.is_sorted_by_key(|entry| entry.paid_sat), "totals only grow");
    }
    assert_eq!(market.publisher.status().await.locked_sat, 0);
    market.guests_are_gone().await;
    assert_eq!(settlement.node.stage, LeaseStage::Settled);
}

/// Neither the node's daemon nor its guest's QEMU takes connections anywhere.
fn nobody_listens(market: &Market) {
    assert_eq!(processes::listening(market.node.pid()), Vec::<String>::new());
    let guests = processes::guests_of(&market.node.dir);
    let [guest] = guests[..] else { panic!("one guest should run: {guests:?}") };
    assert_eq!(processes::listening(guest), Vec::<String>::new());
    // The look itself works: the publisher does listen.
    assert!(!processes::listening(market.publisher.pid()).is_empty());
}

/// 100 MB there with `scp`, checked with `ssh`, and back with `scp`.
async fn files_go_both_ways(market: &Market, lease: xennet_task::LeaseId) {
    let stock = StockSsh::new(market, lease).await;
    let dir = tempfile::tempdir().unwrap();
    let (there, back) = (dir.path().join("there"), dir.path().join("back"));
    let hash = write_noise(&there, 100_000_000);
    let there_s = stock.scp(&there.display().to_string(), &stock.remote("/data/file")).await;
    let shown = stock.ssh("sha256sum /data/file").await;
    assert_eq!(shown.split(' ').next(), Some(hash.as_str()));
    let back_s = stock.scp(&stock.remote("/data/file"), &back.display().to_string()).await;
    assert_eq!(hex::encode(Sha256::digest(std::fs::read(&back).unwrap())), hash);
    eprintln!("100 MB by scp: {there_s:.1} s there, {back_s:.1} s back");
    let billed = market.publisher.lease(lease).await.totals.unwrap().usage.traffic_bytes;
    assert!(billed > 200_000_000, "{billed} bytes are billed");
}

/// A web server in the guest answers through the publisher's daemon, ports without a server are refused, and the guest itself
/// reaches nothing, as its gateway counts.
async fn ports_are_reached_and_nothing_else(market: &Market, lease: xennet_task::LeaseId) {
    market.run(lease, "mkdir /data/www && seq 1000 > /data/www/numbers && httpd -p 80 -h /data/www </dev/null >/dev/null 2>&1", b"").await;
    let mut pipe = market.publisher.client.pipe(&lease, "80").await.unwrap();
    pipe.write_all(b"GET /numbers HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    pipe.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.") && answer.ends_with("\n999\n1000\n"), "{answer}");
    let error = market.publisher.client.pipe(&lease, "81").await.unwrap_err().to_string();
    assert!(error.contains("nothing answers on port 81"), "{error}");

    let before = market.node.lease(lease).await.network.unwrap();
    let knock = "for at in '10.0.2.2 22' '169.254.169.254 80' '192.168.0.1 80' '1.1.1.1 443'; do \
                 nc -w 5 $at </dev/null >/dev/null 2>&1 && echo open $at; done; nslookup xennet.org 10.0.2.3 >/dev/null 2>&1 && echo named; true";
    assert_eq!(market.run(lease, knock, b"").await, "");
    let after = market.node.lease(lease).await.network.unwrap();
    assert_eq!((after.outbound.as_str(), after.opened), ("none", 0));
    assert!(after.refused >= before.refused + 4 && after.in_bytes > 100_000_000 && after.out_bytes > 100_000_000, "{after:?}");
    let counted = market.run(lease, "cd /sys/class/net/eth0/statistics; cat tx_bytes rx_bytes", b"").await;
    let (out, into) = counted.split_once('\n').unwrap();
    for (guest, gateway) in [(out, after.out_bytes), (into, after.in_bytes)] {
        let guest: u64 = guest.trim().parse().unwrap();
        assert!(guest.abs_diff(gateway) * 100 < gateway, "the guest counted {guest} bytes, its gateway {gateway}");
    }
}

/// Fills a file with bytes that do not compress, and gives their SHA-256.
fn write_noise(path: &std::path::Path, bytes: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(bytes)
    .collect();
    std::fs::write(path, &noise).unwrap();
    hex::encode(Sha256::digest(&noise))
}
