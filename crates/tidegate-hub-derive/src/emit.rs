//! The code that the macros emit: the fields as constants, the text made of them, and the assertions that only the compiler
//! can judge.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned as _;

use crate::check::{Layout, LayoutField};

/// Which of the two macros is at work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Record,
    Zone,
}

/// The implementations for a checked struct. They stand where the struct stands and name its types as it does; so the
/// constants in there have names that no struct uses.
pub(crate) fn implementation(layout: &Layout<'_>, kind: Kind) -> TokenStream {
    let (ident, name, (major, minor)) = (&layout.input.ident, &layout.name, layout.version);
    let fields = layout.fields.iter().map(|field| field_def(layout, field, kind));
    let (assertions, limits) = (assertions(layout), limits(layout));
    let record = quote! {
        &::tidegate_hub::schema::RecordDef { name: #name, fields: &[#(#fields),*] }
    };
    let (text_trait, field_impl) = match kind {
        Kind::Zone => (quote!(ZoneLayout), TokenStream::new()),
        Kind::Record => (
            quote!(HubSchema),
            quote! {
                #[automatically_derived]
                impl ::tidegate_hub::schema::RecordField for #ident {
                    const TYPE: ::tidegate_hub::schema::TypeDef = ::tidegate_hub::schema::TypeDef::record(__HUB_RECORD);
                }
            },
        ),
    };
    let (views, view_items) = match kind {
        Kind::Zone => (zone_views(layout), zone_view_items()),
        Kind::Record => (TokenStream::new(), TokenStream::new()),
    };
    let accessors: Vec<_> = layout.fields.iter().filter(|field| field.optional).map(accessor).collect();
    let accessors = match kind {
        Kind::Record if !accessors.is_empty() => quote! {
            #[automatically_derived]
            #[allow(dead_code)]
            impl #ident {
                #(#accessors)*
            }
        },
        _ => TokenStream::new(),
    };
    quote! {
        const _: () = {
            const __HUB_RECORD: &::tidegate_hub::schema::RecordDef = #record;
            const __HUB_SIZE: usize = ::core::mem::size_of::<#ident>();
            const __HUB_ALIGN: usize = ::core::mem::align_of::<#ident>();
            #assertions
            const __HUB_LEN: usize = ::tidegate_hub::schema::text::text_len(__HUB_RECORD, __HUB_SIZE, __HUB_ALIGN);
            #limits
            const __HUB_BYTES: [u8; __HUB_LEN] = ::tidegate_hub::schema::text::text(__HUB_RECORD, __HUB_SIZE, __HUB_ALIGN);

            #field_impl

            #[automatically_derived]
            impl ::tidegate_hub::schema::#text_trait for #ident {
                const NAME: &'static str = #name;
                const VERSION: ::tidegate_hub::schema::SchemaVersion = ::tidegate_hub::schema::SchemaVersion::new(#major, #minor);
                const TEXT: &'static str = ::tidegate_hub::schema::text::as_str(&__HUB_BYTES);
                #view_items
            }

            #views
            #accessors
        };
    }
}

fn field_def(layout: &Layout<'_>, field: &LayoutField<'_>, kind: Kind) -> TokenStream {
    let (ident, name, optional, ty) = (field.ident, &field.name, field.optional, &field.source.ty);
    let record = &layout.input.ident;
    let field_trait = match kind {
        Kind::Zone if !field.padding => quote!(ZoneField),
        _ => quote!(RecordField),
    };
    let ty_def = quote_spanned!(ty.span()=> <#ty as ::tidegate_hub::schema::#field_trait>::TYPE);
    quote! {
        ::tidegate_hub::schema::FieldDef {
            name: #name,
            ty: #ty_def,
            optional: #optional,
            offset: ::core::mem::offset_of!(#record, #ident),
            size: ::core::mem::size_of::<#ty>(),
        }
    }
}

/// Each field begins where the one before ends, and the last one ends the struct.
fn assertions(layout: &Layout<'_>) -> TokenStream {
    let record = &layout.input.ident;
    let padding = layout.fields.iter().filter(|field| field.padding).count();
    let next = format_ident!("_pad{}", padding).to_string();
    let mut end = quote!(0);
    let mut assertions = TokenStream::new();
    for field in &layout.fields {
        let (ident, ty) = (field.ident, &field.source.ty);
        let numbered = layout
            .fields
            .iter()
            .take_while(|other| other.ident != ident)
            .filter(|other| other.padding)
            .count();
        let gap = format!(
            "the compiler leaves a gap before field `{}`: name it with a field `_pad{numbered}: [u8; N]` in front (later \
             ones count on), or put larger fields first",
            field.name
        );
        let empty = format!("field `{}` has no bytes: remove it, or give its array a length", field.name);
        assertions.extend(quote_spanned! {ident.span()=>
            const _: () = assert!(::core::mem::offset_of!(#record, #ident) == #end, #gap);
            const _: () = assert!(::core::mem::size_of::<#ty>() > 0, #empty);
        });
        end = quote!(::core::mem::offset_of!(#record, #ident) + ::core::mem::size_of::<#ty>());
    }
    let tail = format!("the compiler leaves a gap at the end: name it with a last field `{next}: [u8; N]`");
    assertions.extend(quote_spanned! {record.span()=> const _: () = assert!(__HUB_SIZE == #end, #tail);});
    assertions
}

/// What only the finished layout shows.
fn limits(layout: &Layout<'_>) -> TokenStream {
    quote_spanned! {layout.input.ident.span()=>
        const _: () = assert!(
            __HUB_ALIGN <= ::tidegate_hub::schema::MAX_ALIGN as usize,
            "a hub record is aligned to at most 64 bytes, as a slot is: lower `align`"
        );
        const _: () = assert!(
            ::tidegate_hub::schema::text::depth(__HUB_RECORD) <= ::tidegate_hub::schema::MAX_DEPTH,
            "hub records are nested at most 8 deep: make the fields of an inner record fields of the outer"
        );
        const _: () = assert!(
            !::tidegate_hub::schema::text::nests_optional(__HUB_RECORD),
            "a record with #[hub(optional)] fields cannot be a field of another: only the outermost record can grow"
        );
        const _: () = assert!(
            __HUB_LEN <= ::tidegate_hub::schema::MAX_TEXT,
            "the schema text of this record is longer than 32 KiB: use arrays, or fewer fields"
        );
    }
}

/// The method that reads an optional field (DH-173).
fn accessor(field: &LayoutField<'_>) -> TokenStream {
    let (ident, ty, vis) = (field.ident, &field.source.ty, &field.source.vis);
    let doc = format!("The field `{}`; nothing if the producer's records do not have it.", field.name);
    quote! {
        #[doc = #doc]
        #[must_use]
        #vis fn #ident(&self, agreement: &::tidegate_hub::schema::Agreement) -> ::core::option::Option<&#ty> {
            let end = ::core::mem::offset_of!(Self, #ident) + ::core::mem::size_of::<#ty>();
            if agreement.has(end) { ::core::option::Option::Some(&self.#ident) } else { ::core::option::Option::None }
        }
    }
}

/// The three views of a zone: a method for each field but padding. They have no names outside of the block of constants;
/// `ZoneLayout` leads to them.
fn zone_views(layout: &Layout<'_>) -> TokenStream {
    let views = [
        ("Read", "read", quote!(Row), "to look"),
        ("Shared", "shared", quote!(RowMut), "to take part"),
        ("Held", "held", quote!(RowMut), "for who has the zone to itself"),
    ];
    let views = views.map(|(name, method, row, purpose)| {
        let (view, field_type, method) =
            (format_ident!("__Hub{name}"), format_ident!("{name}"), format_ident!("{method}"));
        let doc = format!("The fields of `{}`, {purpose}.", layout.name);
        let methods = layout.fields.iter().filter(|field| !field.padding).map(|field| {
            let (ident, ty, vis) = (field.ident, &field.source.ty, &field.source.vis);
            let record = &layout.input.ident;
            let doc = format!("The field `{}`, {purpose}.", field.name);
            quote! {
                #[doc = #doc]
                #[inline]
                #vis fn #ident(&self) -> <#ty as ::tidegate_hub::schema::ZoneField>::#field_type<'z> {
                    <#ty as ::tidegate_hub::schema::ZoneField>::#method::<{ ::core::mem::offset_of!(#record, #ident) }, __HUB_SIZE>(self.0)
                }
            }
        });
        quote! {
            #[doc = #doc]
            #[derive(Clone, Copy)]
            pub struct #view<'z>(::tidegate_hub::zone::layout::#row<'z, __HUB_SIZE>);

            #[automatically_derived]
            #[allow(dead_code)]
            impl<'z> #view<'z> {
                #(#methods)*
            }
        }
    });
    quote! { #(#views)* }
}

/// What leads to the views.
fn zone_view_items() -> TokenStream {
    quote! {
        type Read<'z> = __HubRead<'z>;
        type Shared<'z> = __HubShared<'z>;
        type Held<'z> = __HubHeld<'z>;

        fn read(bytes: ::tidegate_hub::zone::layout::Span<'_>) -> ::core::option::Option<__HubRead<'_>> {
            ::tidegate_hub::zone::layout::Row::of(bytes).ok().map(__HubRead)
        }
        fn shared(bytes: ::tidegate_hub::zone::layout::SpanMut<'_>) -> ::core::option::Option<__HubShared<'_>> {
            ::tidegate_hub::zone::layout::RowMut::of(bytes).ok().map(__HubShared)
        }
        fn held(bytes: ::tidegate_hub::zone::layout::SpanMut<'_>) -> ::core::option::Option<__HubHeld<'_>> {
            ::tidegate_hub::zone::layout::RowMut::of(bytes).ok().map(__HubHeld)
        }
    }
}
