//! A qcow2 disk, read by code of ours in a confined process, becomes a raw one (QEMU's docs/interop/qcow2.txt).
//!
//! QEMU itself never sees such a file of a stranger: whatever its header names outside of it, nothing here can open.

use std::io::{Read, Seek, SeekFrom, Write};

use super::kind::{HEAD, disk_inside};
use super::refusal::{Refusal, tame};

/// Snapshots and bitmaps are not carried over; this many may be there.
const MOST_EXTRAS: u64 = 16;

/// What the header says, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    cluster_bits: u32,
    size: u64,
    l1_offset: u64,
    l1_entries: u64,
    zstd: bool,
}

const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Writes the disk as raw bytes and returns its size. Zeros are left out where the file can have holes.
pub(crate) fn unpack(input: &mut (impl Read + Seek), output: &mut (impl Write + Seek), most: u64) -> Result<u64, Refusal> {
    let length = input.seek(SeekFrom::End(0))?;
    let header = header(input, length, most)?;
    let cluster = 1_u64 << header.cluster_bits;
    let per_table = cluster / 8;
    let l1 = table(input, length, header.l1_offset, header.l1_entries, "the first table")?;
    let mut bytes = vec![0; cluster as usize];
    for (at, entry) in l1.into_iter().enumerate() {
        if entry & !(OFFSET | 1 << 63) != 0 {
            return Err(Refusal::Field { field: "an entry of the first table", value: entry, expected: "an offset and one flag" });
        }
        let (begin, offset) = (at as u64 * per_table * cluster, entry & OFFSET);
        let entries = per_table.min(header.size.saturating_sub(begin).div_ceil(cluster));
        let l2 = if offset == 0 { Vec::new() } else { table(input, length, offset, entries, "a second table")? };
        let places = (begin..header.size).step_by(cluster as usize);
        for (place, entry) in places.zip(l2) {
            let want = cluster.min(header.size - place) as usize;
            if !one(input, length, entry, &header, &mut bytes[..], want)? {
                continue;
            }
            if place == 0 {
                disk_inside(&bytes[..want.min(HEAD)])?;
            }
            if bytes[..want].iter().any(|byte| *byte != 0) {
                output.seek(SeekFrom::Start(place))?;
                output.write_all(&bytes[..want])?;
            }
        }
    }
    output.flush()?;
    Ok(header.size)
}

/// Reads the cluster that an entry names. `false`: it is all zeros.
fn one(input: &mut (impl Read + Seek), length: u64, entry: u64, header: &Header, bytes: &mut [u8], want: usize) -> Result<bool, Refusal> {
    let cluster = bytes.len() as u64;
    if entry & (1 << 62) != 0 {
        let bits = 62 - (header.cluster_bits - 8);
        let offset = entry & ((1 << bits) - 1);
        let sectors = (entry & ((1 << 62) - 1)) >> bits;
        let packed = ((sectors + 1) * 512 - (offset & 511)).min(length.saturating_sub(offset));
        if offset >= length {
            return Err(Refusal::Truncated { what: "a compressed cluster", length, end: offset });
        }
        let mut compressed = vec![0; packed.min(2 * cluster + 512) as usize];
        input.seek(SeekFrom::Start(offset))?;
        input.read_exact(&mut compressed)?;
        inflate(&compressed, header.zstd, bytes)?;
        return Ok(true);
    }
    if entry & !(OFFSET | 1 << 63 | 1) != 0 {
        return Err(Refusal::Field { field: "an entry of a second table", value: entry, expected: "an offset and two flags" });
    }
    let offset = entry & OFFSET;
    if entry & 1 != 0 || offset == 0 {
        return Ok(false);
    }
    aligned(offset, cluster, "the offset of a cluster")?;
    if offset.saturating_add(want as u64) > length {
        return Err(Refusal::Truncated { what: "a cluster", length, end: offset.saturating_add(want as u64) });
    }
    input.seek(SeekFrom::Start(offset))?;
    input.read_exact(&mut bytes[..want])?;
    Ok(true)
}

fn inflate(compressed: &[u8], zstd: bool, into: &mut [u8]) -> Result<(), Refusal> {
    let damaged = || Refusal::Damaged { what: "a compressed cluster" };
    if zstd {
        let mut reader = ruzstd::decoding::StreamingDecoder::new(compressed).map_err(|_| damaged())?;
        return reader.read_exact(into).map_err(|_| damaged());
    }
    let mut reader = flate2::Decompress::new(false);
    reader.decompress(compressed, into, flate2::FlushDecompress::Finish).map_err(|_| damaged())?;
    if reader.total_out() == into.len() as u64 { Ok(()) } else { Err(damaged()) }
}

fn table(input: &mut (impl Read + Seek), length: u64, offset: u64, entries: u64, what: &'static str) -> Result<Vec<u64>, Refusal> {
    let end = offset.saturating_add(entries.saturating_mul(8));
    if end > length {
        return Err(Refusal::Truncated { what, length, end });
    }
    let mut bytes = vec![0; (entries * 8) as usize];
    input.seek(SeekFrom::Start(offset))?;
    input.read_exact(&mut bytes)?;
    Ok(bytes.as_chunks().0.iter().map(|bytes| u64::from_be_bytes(*bytes)).collect())
}

fn aligned(offset: u64, cluster: u64, field: &'static str) -> Result<(), Refusal> {
    if offset.is_multiple_of(cluster) {
        Ok(())
    } else {
        Err(Refusal::Field { field, value: offset, expected: "a multiple of the cluster's size" })
    }
}

fn header(input: &mut (impl Read + Seek), length: u64, most: u64) -> Result<Header, Refusal> {
    let mut head = [0; 112];
    let have = length.min(112) as usize;
    if have < 72 {
        return Err(Refusal::Truncated { what: "the header", length, end: 72 });
    }
    input.seek(SeekFrom::Start(0))?;
    input.read_exact(&mut head[..have])?;
    let long = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| head[at + i]));
    let short = |at: usize| u64::from(u32::from_be_bytes(std::array::from_fn(|i| head[at + i])));
    let wrong = |field, value, expected| Err(Refusal::Field { field, value, expected });

    let version = short(4);
    if !matches!(version, 2 | 3) {
        return wrong("version", version, "2 or 3");
    }
    let (backing_offset, backing_length) = (long(8), short(16));
    if backing_offset != 0 || backing_length != 0 {
        let mut name = vec![0; backing_length.min(120).min(length.saturating_sub(backing_offset)) as usize];
        input.seek(SeekFrom::Start(backing_offset.min(length)))?;
        input.read_exact(&mut name)?;
        return Err(Refusal::Backing { name: tame(&String::from_utf8_lossy(&name)) });
    }
    match short(32) {
        0 => {}
        1 => return Err(Refusal::Encrypted { how: "qcow2's AES" }),
        2 => return Err(Refusal::Encrypted { how: "LUKS inside qcow2" }),
        other => return wrong("crypt_method", other, "0, not encrypted"),
    }
    let cluster_bits = short(20);
    if !(9..=21).contains(&cluster_bits) {
        return wrong("cluster_bits", cluster_bits, "9 to 21");
    }
    let size = long(24);
    if size > most {
        return Err(Refusal::TooLarge { what: "the disk inside", bytes: size, most });
    }
    if size == 0 {
        return wrong("size", 0, "at least 512");
    }
    let (incompatible, header_length) = if version == 3 { (long(72), short(100)) } else { (0, 72) };
    if incompatible & 4 != 0 {
        return Err(Refusal::ExternalData);
    }
    if incompatible & !(1 | 8) != 0 {
        let expected = "none but 0 (dirty) and 3 (compression); `qemu-img convert` without extended_l2 makes such a one";
        return wrong("incompatible_features", incompatible, expected);
    }
    let cluster = 1_u64 << cluster_bits;
    if version == 3 && !(104..=cluster.min(4096)).contains(&header_length) {
        return wrong("header_length", header_length, "104 to 4096");
    }
    let zstd = match (incompatible & 8 != 0, head[104]) {
        (false, _) => false,
        (true, 1) if header_length >= 105 => true,
        (true, other) => return wrong("compression_type", u64::from(other), "1 (zstd) where the feature is set"),
    };
    if short(60) > MOST_EXTRAS {
        return Err(Refusal::TooMany { what: "snapshots", found: short(60), most: MOST_EXTRAS });
    }
    extensions(input, header_length, cluster.min(length))?;

    let covered = cluster * (cluster / 8);
    let (l1_entries, l1_given, l1_offset) = (size.div_ceil(covered), short(36), long(40));
    if l1_given < l1_entries {
        return wrong("l1_size", l1_given, "enough for the disk's size");
    }
    aligned(l1_offset, cluster, "l1_table_offset")?;
    Ok(Header { cluster_bits: cluster_bits as u32, size, l1_offset, l1_entries, zstd })
}

/// What follows the header: nothing in it may name another file, or be without end.
fn extensions(input: &mut (impl Read + Seek), begin: u64, end: u64) -> Result<(), Refusal> {
    const MOST: u64 = 32;
    let mut at = begin;
    for found in 0.. {
        if found > MOST {
            return Err(Refusal::TooMany { what: "header extensions", found, most: MOST });
        }
        if at + 8 > end {
            return Ok(());
        }
        let mut head = [0; 16];
        input.seek(SeekFrom::Start(at))?;
        let have = (end - at).min(16) as usize;
        input.read_exact(&mut head[..have])?;
        let number = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| head[at + i]));
        let (kind, length) = (number(0), u64::from(number(4)));
        match kind {
            0 => return Ok(()),
            0x4441_5441 => return Err(Refusal::ExternalData),
            0x0537_be77 => return Err(Refusal::Encrypted { how: "LUKS inside qcow2" }),
            0xe279_2aca => return Err(Refusal::Backing { name: "only its format is named".into() }),
            0x2385_2875 if u64::from(number(8)) > MOST_EXTRAS => {
                return Err(Refusal::TooMany { what: "bitmaps", found: u64::from(number(8)), most: MOST_EXTRAS });
            }
            _ => {}
        }
        at += 8 + length.next_multiple_of(8);
        if at > end {
            return Err(Refusal::Field {
                field: "the length of a header extension",
                value: length,
                expected: "one that ends in the first cluster",
            });
        }
    }
    Ok(())
}
