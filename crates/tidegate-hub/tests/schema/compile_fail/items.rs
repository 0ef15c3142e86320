use tidegate_hub::schema::HubSchema;

#[repr(C)]
#[derive(HubSchema)]
enum Choice {
    A,
    B,
}

#[repr(C)]
#[derive(HubSchema)]
union Either {
    a: u32,
    b: f32,
}

#[repr(C)]
#[derive(HubSchema)]
struct Tuple(u32);

#[repr(C)]
#[derive(HubSchema)]
struct Unit;

#[repr(C)]
#[derive(HubSchema)]
struct Generic<T> {
    a: T,
}

#[repr(C)]
#[derive(HubSchema)]
struct Sized<const N: usize> {
    a: [u8; N],
}

fn main() {}
