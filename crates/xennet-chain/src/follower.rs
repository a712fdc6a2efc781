//! The task that follows a chain, which ends with whoever holds it.

use std::sync::{Mutex, PoisonError};

use tokio::task::JoinHandle;

#[derive(Debug)]
pub(crate) struct Follower(Mutex<Option<JoinHandle<()>>>);

impl Follower {
    pub(crate) fn start(follow: impl Future<Output = ()> + Send + 'static) -> Follower {
        Follower(Mutex::new(Some(tokio::spawn(follow))))
    }

    fn take(&self) -> Option<JoinHandle<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends it. What it held is free for the next one when this returns.
    pub(crate) async fn end(&self) {
        if let Some(task) = self.take() {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(task) = self.take() {
            task.abort();
        }
    }
}
