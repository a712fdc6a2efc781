//! Joins a pipe to another stream without copying what goes through.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::sleep;
use tokio_util::bytes::{Bytes, BytesMut};

use super::{BATCH, Pipe, Reader, Writer};

/// When the other end of the pipe has closed it and everything was read, the stream has this long to take the rest.
const LINGER: Duration = Duration::from_secs(10);

pub(super) async fn join<T: AsyncRead + AsyncWrite>(pipe: Pipe, stream: T) -> io::Result<()> {
    let Pipe { mut reader, mut writer, _place } = pipe;
    let drained = reader.shared.drained.clone();
    let (mut from, mut to) = split(stream);
    let both = async { tokio::try_join!(out(&mut reader, &mut to), into(&mut from, &mut writer)) };
    tokio::select! {
        joined = both => joined.map(|_| ()),
        // A stream that never ends would otherwise keep a pipe nobody is at the other end of.
        () = async { drained.cancelled().await; sleep(LINGER).await } => Ok(()),
    }
}

/// From the pipe to the stream.
async fn out(reader: &mut Reader, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    while let Some(mut chunks) = poll_fn(|cx| reader.poll_chunks(cx)).await? {
        to.write_all_buf(&mut chunks).await?;
    }
    to.shutdown().await
}

/// From the stream to the pipe.
async fn into(from: &mut (impl AsyncRead + Unpin), writer: &mut Writer) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        // Small pieces share a buffer; each is sent before the buffer is used up.
        if buffer.capacity() < BATCH / 2 {
            buffer.reserve(BATCH);
        }
        if from.read_buf(&mut buffer).await? == 0 {
            return poll_fn(|cx| writer.poll_shut(cx)).await;
        }
        let mut chunk: Bytes = buffer.split().freeze();
        while !chunk.is_empty() {
            poll_fn(|cx| {
                let credit = writer.poll_credit(cx);
                credit.map_ok(|credit| writer.send(chunk.split_to(credit.min(chunk.len())), cx))
            })
            .await?;
        }
    }
}
