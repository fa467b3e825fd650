//! The same bytes, as they may arrive: in any pieces.

/// Longer inputs are not cut byte by byte, which takes long and shows nothing new.
const BYTE_BY_BYTE: usize = 512;

/// Ways to cut `bytes`: whole, by a rule that `seed` chooses, and byte by byte.
pub fn cuts(bytes: &[u8], seed: u8) -> Vec<Vec<&[u8]>> {
    let mut ways = vec![vec![bytes], random(bytes, seed)];
    if bytes.len() <= BYTE_BY_BYTE {
        ways.push(bytes.chunks(1).collect());
    }
    ways
}

/// Pieces of 1 to 64 bytes, or up to some thousand where the seed is high; some hundred pieces at most.
fn random(mut bytes: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut state = u32::from(seed).wrapping_mul(0x9e37_79b9) | 1;
    let largest = if seed < 192 { 1 + u32::from(seed) % 64 } else { 4096 };
    let largest = largest.max(bytes.len() as u32 / 256);
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let (piece, rest) = bytes.split_at(bytes.len().min((1 + state % largest) as usize));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}
