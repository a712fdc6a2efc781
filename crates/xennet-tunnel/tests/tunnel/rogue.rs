//! Ends that do not keep to the rules, made with the SSH library alone.

use std::net::SocketAddr;
use std::sync::Arc;

use russh::client;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, VerifiedPublicKey};
use russh::{Channel, ChannelId};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::world::*;

pub fn key(seed: &[u8; 32]) -> PrivateKey {
    PrivateKey::from_openssh(xennet_tunnel::openssh_private_key(seed).unwrap()).unwrap()
}

pub struct AnyHost;

impl client::Handler for AnyHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// A node that says what it likes.
pub struct Node {
    pub _ssh: client::Handle<AnyHost>,
    pub lease: Channel<client::Msg>,
}

impl Node {
    /// Logged in, and nothing more.
    pub async fn logged_in(address: SocketAddr) -> client::Handle<AnyHost> {
        let config = Arc::new(client::Config::default());
        let mut ssh = client::connect(config, address, AnyHost).await.unwrap();
        let key = PrivateKeyWithHashAlg::new(Arc::new(key(&NODE_SEED)), None);
        assert!(ssh.authenticate_publickey(LEASE, key).await.unwrap().success());
        ssh
    }

    /// With lease pipe and forward.
    pub async fn up(address: SocketAddr) -> Self {
        let ssh = Self::logged_in(address).await;
        let lease = ssh.channel_open_session().await.unwrap();
        lease.request_subsystem(true, "xennet-lease").await.unwrap();
        ssh.tcpip_forward(PIPE, xennet_tunnel::PIPE_VERSION).await.unwrap();
        Self { _ssh: ssh, lease }
    }
}

/// A publisher that says what it likes.
pub struct Publisher {
    pub address: SocketAddr,
    pub session: oneshot::Receiver<server::Handle>,
}

struct Everything(Option<oneshot::Sender<server::Handle>>, Vec<Channel<Msg>>);

impl Publisher {
    pub async fn start() -> Self {
        let socket = TcpListener::bind(LOOPBACK).await.unwrap();
        let address = socket.local_addr().unwrap();
        let (tell, session) = oneshot::channel();
        let config = Arc::new(server::Config { keys: vec![key(&HOST_SEED)], ..server::Config::default() });
        tokio::spawn(async move {
            let (stream, _) = socket.accept().await.unwrap();
            let handler = Everything(Some(tell), Vec::new());
            let running = server::run_stream(config, stream, handler).await.unwrap();
            let _ = running.await;
        });
        Self { address, session }
    }
}

impl server::Handler for Everything {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut server::Session,
    ) -> Result<(), Self::Error> {
        self.1.push(channel);
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(&mut self, channel: ChannelId, _: &str, session: &mut server::Session) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn tcpip_forward(&mut self, _: &str, _: &mut u32, session: &mut server::Session) -> Result<bool, Self::Error> {
        if let Some(tell) = self.0.take() {
            let _ = tell.send(session.handle());
        }
        Ok(true)
    }
}
