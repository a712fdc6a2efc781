//! The lease pipe: frames of a big-endian `u32` length and that many bytes.

use russh::{ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::mpsc;

use crate::cut::Cut;
use crate::error::TunnelError;
use crate::event::TunnelEvent;
use crate::settings::MAX_FRAME;

/// Cuts a stream of bytes into frames. Holds at most one frame.
#[derive(Debug, Default)]
struct FrameReader {
    bytes: Vec<u8>,
}

impl FrameReader {
    /// Takes some of `input` and gives a frame as soon as one is whole. To be called until `input` is empty.
    fn next(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, TunnelError> {
        self.fill(4, input);
        let Some(head) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*head) as usize;
        check_len(len)?;
        self.fill(4 + len, input);
        if self.bytes.len() < 4 + len {
            return Ok(None);
        }
        let frame = self.bytes.split_off(4);
        self.bytes.clear();
        Ok(Some(frame))
    }

    fn fill(&mut self, upto: usize, input: &mut &[u8]) {
        let n = upto.saturating_sub(self.bytes.len()).min(input.len());
        let (taken, rest) = input.split_at(n);
        self.bytes.extend_from_slice(taken);
        *input = rest;
    }
}

/// Refuses a frame that is empty or too long.
pub(crate) fn check_len(len: usize) -> Result<(), TunnelError> {
    if len == 0 || len > MAX_FRAME {
        return Err(TunnelError::FrameLength { len, max: MAX_FRAME });
    }
    Ok(())
}

/// Passes the frames of the lease pipe on to the daemon until the pipe ends, and says why it did.
///
/// While the daemon has no room for an event nothing more is read, and in the end the peer has to wait.
pub(crate) async fn receive(pipe: &mut ChannelReadHalf, user: &str, events: &mpsc::Sender<TunnelEvent>) -> Ended {
    let because = |why: &str| Ended::Because(why.to_owned());
    let mut frames = FrameReader::default();
    loop {
        let data = match pipe.wait().await {
            Some(ChannelMsg::Data { data }) => data,
            Some(ChannelMsg::Eof | ChannelMsg::Close) => {
                return because("the other end closed the lease pipe");
            }
            None => return Ended::Gone,
            Some(_) => continue,
        };
        let mut input = &data[..];
        while !input.is_empty() {
            match frames.next(&mut input) {
                Ok(Some(bytes)) => {
                    let user = user.to_owned();
                    let event = TunnelEvent::Frame { user, bytes };
                    if events.send(event).await.is_err() {
                        return because("the daemon stopped");
                    }
                }
                Ok(None) => (),
                Err(e) => return Ended::Because(format!("the other end broke the lease pipe: {e}")),
            }
        }
    }
}

/// How the lease pipe came to its end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The whole session is gone.
    Gone,
    /// Our end has a reason to close the session.
    Because(String),
}

/// Writes frames to the lease pipe until there is an error or the order to close. In the latter case what was queued
/// is written first.
pub(crate) async fn send<S>(pipe: &ChannelWriteHalf<S>, queue: &mut mpsc::Receiver<Vec<u8>>, closing: &Cut) -> Ended
where
    S: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    loop {
        let frame = tokio::select! {
            biased;
            frame = queue.recv() => frame,
            _ = closing.wait(), if !queue.is_closed() => {
                // What is in the queue is still received; nothing more gets in.
                queue.close();
                continue;
            }
        };
        let Some(frame) = frame else {
            if closing.is_cut() {
                return Ended::Because(closing.why());
            }
            return Ended::Because("the daemon let go of the tunnel".to_owned());
        };
        // One message for head and body: two would be two packets.
        let mut bytes = Vec::with_capacity(4 + frame.len());
        bytes.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&frame);
        if pipe.data_bytes(bytes).await.is_err() {
            return Ended::Gone;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn all(input: &[u8], step: usize) -> Result<Vec<Vec<u8>>, TunnelError> {
        let mut reader = FrameReader::default();
        let mut frames = Vec::new();
        for mut piece in input.chunks(step) {
            while !piece.is_empty() {
                frames.extend(reader.next(&mut piece)?);
            }
        }
        assert!(reader.bytes.len() <= 4 + MAX_FRAME);
        Ok(frames)
    }

    #[test]
    fn frames_are_the_same_however_the_stream_is_cut() {
        let mut stream = Vec::new();
        let sent: Vec<Vec<u8>> = [1, 4, 5, 65_536, 3, 30_000].iter().map(|len| (0..*len).map(|i| (i * 7 + len) as u8).collect()).collect();
        for frame in &sent {
            stream.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            stream.extend_from_slice(frame);
        }
        for step in [1, 2, 3, 5, 1000, 65_536, stream.len()] {
            assert!(all(&stream, step).unwrap() == sent, "step {step}");
        }
    }

    #[test]
    fn an_empty_and_an_oversized_frame_are_refused_before_their_body_comes() {
        assert!(all(&[0, 0, 0, 0], 4).is_err());
        let error = all(&[0, 1, 0, 1], 1).unwrap_err().to_string();
        assert!(error.contains("65537 bytes"), "{error}");
        assert!(all(&[0xff; 4], 4).is_err());
    }
}
