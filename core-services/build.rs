//! A new migration must rebuild the binary that carries them.

fn main() {
    println!("cargo:rerun-if-changed=../sql");
}
