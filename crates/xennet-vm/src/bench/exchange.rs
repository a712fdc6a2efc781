//! A guest that does nothing but send and take bytes, so that two networks can be held beside each other.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Child;
use tokio::time::timeout;

use super::{WITHIN, by_hand, initrd_with, is_up};
use crate::accelerator::Accelerator;
use crate::cpio::Archive;
use crate::error::{Doing, VmError};
use crate::image::Image;
use crate::process;

/// At this port the guest reads to the end and then says how many bytes came.
pub const SINK: u16 = 5_001;
/// At this port the guest sends [`SOURCE_BYTES`] and hangs up.
pub const SOURCE: u16 = 5_002;
/// What one connection to [`SOURCE`] gives, bytes.
pub const SOURCE_BYTES: u64 = 32 << 20;

/// In place of the image's own first process.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
mount -t proc proc /proc
while read -r module; do insmod "/lib/modules/$(uname -r)/kernel/$module"; done <"/lib/modules/$(uname -r)/boot"
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
head -c 33554432 /dev/zero >/zeros
nc -ll -p 5001 -e wc -c &
nc -ll -p 5002 -e cat /zeros &
sleep 1
echo "xennet: ready"
while :; do sleep 1000; done
"#;

/// A QEMU by hand with such a guest. Ended when it is dropped.
#[derive(Debug)]
pub struct Exchange {
    child: Child,
}

impl Exchange {
    /// On QEMU's own user network. Also gives where [`SINK`] and [`SOURCE`] are reached.
    ///
    /// # Errors
    /// When QEMU or a port cannot be had, or the guest is not up within two minutes.
    pub async fn on_own_network(image: &Image, accelerator: Accelerator, dir: &Path) -> Result<(Exchange, [SocketAddr; 2]), VmError> {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
        let doing = || "looking for a free port on 127.0.0.1".to_owned();
        let (sink, source) = (free().doing(doing)?, free().doing(doing)?);
        let netdev = format!("user,id=net,restrict=on,ipv6=off,hostfwd=tcp:{sink}-:{SINK},hostfwd=tcp:{source}-:{SOURCE}");
        let exchange = Exchange::start(image, accelerator, dir, &netdev, Stdio::null()).await?;
        Ok((exchange, [sink, source]))
    }

    /// With its card on a socket, as a node's guests have it.
    ///
    /// # Errors
    /// When QEMU or a socket cannot be had, or the guest is not up within two minutes.
    pub async fn on_socket(image: &Image, accelerator: Accelerator, dir: &Path) -> Result<(Exchange, UnixStream), VmError> {
        let (ours, theirs) = UnixStream::pair().doing(|| "making a socket for the guest's card".into())?;
        let netdev = "stream,id=net,server=off,addr.type=fd,addr.str=0";
        let exchange = Exchange::start(image, accelerator, dir, netdev, Stdio::from(OwnedFd::from(theirs))).await?;
        Ok((exchange, ours))
    }

    async fn start(image: &Image, accelerator: Accelerator, dir: &Path, netdev: &str, stdin: Stdio) -> Result<Exchange, VmError> {
        let initrd = initrd_with(image, dir.join("exchange.cpio"), Archive::new().file("exchange", 0o755, INIT.as_bytes()))?;
        let mut child = by_hand(image, &initrd, accelerator, "rdinit=/exchange")?
            .args(["-serial", "file:/proc/self/fd/1", "-netdev", netdev])
            .stdin(stdin)
            .spawn()
            .doing(|| "starting QEMU".into())?;
        let up = match child.stdout.take() {
            Some(console) => timeout(WITHIN, is_up(console)).await.unwrap_or(false),
            None => false,
        };
        crate::disk::remove(&initrd)?;
        if up { Ok(Exchange { child }) } else { Err(VmError::NotReady { waited: WITHIN, console: "(not kept)".into() }) }
    }

    /// Time that QEMU has spent on the host's processors, the guest's work and the network's, in steps of 10 ms.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        self.child.id().and_then(process::whole_time).unwrap_or_default()
    }
}
