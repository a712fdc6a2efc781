//! The one switch that ends a session, with the reason.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A clonable switch. The first reason given is kept.
#[derive(Clone, Default, Debug)]
pub(crate) struct Cut {
    inner: Arc<Inner>,
}

#[derive(Default, Debug)]
struct Inner {
    token: CancellationToken,
    why: OnceLock<String>,
}

impl Cut {
    /// Ends the session.
    pub(crate) fn cut(&self, why: impl Into<String>) {
        let _ = self.inner.why.set(why.into());
        self.inner.token.cancel();
    }

    /// Whether the session was ended.
    pub(crate) fn is_cut(&self) -> bool {
        self.inner.token.is_cancelled()
    }

    /// Why it was ended, or that it was closed.
    pub(crate) fn why(&self) -> String {
        self.inner.why.get().cloned().unwrap_or_else(|| "the connection was closed".to_owned())
    }

    /// Waits for the end and says why.
    pub(crate) async fn wait(&self) -> String {
        self.inner.token.cancelled().await;
        self.why()
    }

    /// A future that can be kept in a struct.
    pub(crate) fn waiting(&self) -> WaitForCancellationFutureOwned {
        self.inner.token.clone().cancelled_owned()
    }
}
