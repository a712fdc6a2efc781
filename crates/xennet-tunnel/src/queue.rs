//! Bytes that wait for a reader.

use std::collections::VecDeque;
use std::io::IoSlice;

use tokio::io::ReadBuf;
use tokio_util::bytes::{Buf, Bytes, BytesMut};

/// Chunks below this are copied together: a peer that sends single bytes must not cost a hundred times their memory.
const SMALL: usize = 4096;

/// A queue of bytes. It has no bound of its own; whoever fills it knows how much may come.
#[derive(Default, Debug)]
pub(crate) struct ByteQueue {
    chunks: VecDeque<Bytes>,
    /// Comes after all `chunks`.
    small: BytesMut,
    len: usize,
}

impl ByteQueue {
    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds bytes at the end.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.len += chunk.len();
        if chunk.len() < SMALL && self.small.len() < 8 * SMALL {
            self.small.extend_from_slice(&chunk);
            return;
        }
        self.seal();
        self.chunks.push_back(chunk);
    }

    /// Moves as much as fits into `buf` and says how much that was.
    pub(crate) fn read(&mut self, buf: &mut ReadBuf<'_>) -> usize {
        let mut moved = 0;
        while buf.remaining() > 0 {
            let Some(mut first) = self.chunks.pop_front() else {
                if self.small.is_empty() {
                    break;
                }
                self.seal();
                continue;
            };
            let n = first.len().min(buf.remaining());
            buf.put_slice(&first[..n]);
            moved += n;
            if n < first.len() {
                first.advance(n);
                self.chunks.push_front(first);
            }
        }
        self.len -= moved;
        moved
    }

    /// Takes some chunks out, about `most` bytes, without copying them.
    pub(crate) fn pop(&mut self, most: usize) -> Option<Self> {
        let mut taken = Self::default();
        while taken.len < most {
            if self.chunks.is_empty() {
                self.seal();
            }
            let Some(first) = self.chunks.pop_front() else { break };
            taken.len += first.len();
            taken.chunks.push_back(first);
        }
        self.len -= taken.len;
        (!taken.is_empty()).then_some(taken)
    }

    /// Throws everything away.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn seal(&mut self) {
        if !self.small.is_empty() {
            self.chunks.push_back(self.small.split().freeze());
        }
    }
}

/// So that many chunks can be written by one call.
impl Buf for ByteQueue {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&self.small, |first| first)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
            n += 1;
        }
        n
    }

    fn advance(&mut self, mut count: usize) {
        self.len -= count;
        while let Some(first) = self.chunks.front_mut() {
            if count < first.len() {
                return first.advance(count);
            }
            count -= first.len();
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_they_came_whatever_their_chunks() {
        let mut queue = ByteQueue::default();
        let mut expected = Vec::new();
        for (i, size) in [1, 5000, 1, 2, 4095, 4096, 70_000, 3, 40_000, 0, 9].iter().enumerate() {
            let chunk = vec![i as u8; *size];
            expected.extend_from_slice(&chunk);
            queue.push(Bytes::from(chunk));
        }
        assert_eq!(queue.len(), expected.len());
        let mut got = Vec::new();
        let mut space = [0; 777];
        while !queue.is_empty() {
            let mut buf = ReadBuf::new(&mut space);
            let n = queue.read(&mut buf);
            assert_eq!(n, buf.filled().len());
            got.extend_from_slice(buf.filled());
        }
        assert!(got == expected);
    }

    #[test]
    fn single_bytes_are_kept_together() {
        let mut queue = ByteQueue::default();
        for _ in 0..1_000_000 {
            queue.push(Bytes::from_static(b"x"));
        }
        assert_eq!(queue.len(), 1_000_000);
        assert!(queue.chunks.len() < 100, "{} chunks", queue.chunks.len());
    }
}
