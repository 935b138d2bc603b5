//! 2xxx: datastores and NFS.

codes! {
    2001 DATASTORE_NOT_FOUND Error, exit NotFound, http 404, since "0.1.0" {
        what: "There is no datastore of that name.",
        why: "The name is misspelt, the datastore was deleted, or the command talks to another appliance.",
        act: ["list them: vmhold datastore list"],
        urgency: "nothing was changed",
        clears: "an existing datastore is named",
        parameters: ["datastore"],
    }
    2002 DATASTORE_EXISTS Error, exit Refused, http 409, since "0.1.0" {
        what: "There is already a datastore of that name.",
        why: "Names are exports; two of the same name cannot be told apart by clients.",
        act: ["choose another name", "see the present one: vmhold datastore list"],
        urgency: "nothing was changed",
        clears: "another name is used",
        parameters: ["datastore"],
    }
    2003 DATASTORE_NOT_EMPTY Error, exit Refused, http 409, since "0.1.0" {
        what: "The datastore still holds files.",
        why: "Deleting it would delete them; that needs its name as confirmation.",
        act: ["move or delete the files first", "or confirm the loss: vmhold datastore delete NAME --confirm=NAME"],
        urgency: "nothing was changed",
        clears: "the datastore is empty or the deletion is confirmed",
        parameters: ["datastore", "files", "bytes"],
    }
    2021 EXPORT_DENIED Warning, exit NotAllowed, http 403, since "0.1.0" {
        what: "A client was refused access to an export.",
        why: "Its address is not in the access list of the datastore.",
        act: ["if it should have access, add its network: vmhold datastore create NAME --allow NETWORK", "otherwise nothing"],
        urgency: "none unless a host of yours is meant",
        clears: "the client is allowed or stops asking",
        parameters: ["datastore", "client"],
    }
    2031 STALE_HANDLES Warning, exit Failed, http 409, since "0.1.0" {
        what: "A client uses handles of files that no longer exist.",
        why: "The file or its datastore was deleted while the client had it open, or the handle is from another appliance.",
        act: ["unmount and mount again on that client"],
        urgency: "none for the data; the client gets errors until it mounts again",
        clears: "the client uses valid handles",
        parameters: ["client", "datastore"],
    }
    2041 PORT_IN_USE Error, exit Refused, http 409, since "0.1.0" {
        what: "A port the server needs is in use.",
        why: "Another server, or another demo, listens there.",
        act: ["choose another: vmhold quickstart --ports-from 30000", "see who listens: ss -ltnp"],
        urgency: "nothing was changed",
        clears: "the port is free or another one is chosen",
        parameters: ["port", "purpose"],
    }
    2042 PORTMAP_ABSENT Info, exit Failed, http 503, since "0.1.0" {
        what: "No portmapper knows this server.",
        why: "rpcbind does not run here and the built-in portmapper is off. Clients that name ports in their mount options work; those that ask port 111 first do not.",
        act: ["mount with port= and mountport=, as printed by: vmhold datastore mount-info NAME", "or switch on the built-in one: vmhold serve --portmap"],
        urgency: "none unless a hypervisor has no port options",
        clears: "a portmapper knows the server",
        parameters: ["reason"],
    }
    2043 PORT_NOT_ALLOWED Error, exit NotAllowed, http 403, since "0.1.0" {
        what: "The system does not let this user open that port.",
        why: "Ports below 1024 need a capability; NFS clients expect 2049 and portmappers 111.",
        act: ["use high ports: vmhold quickstart does by default", "or give the right once: setcap cap_net_bind_service=+ep $(command -v vmhold)"],
        urgency: "nothing was changed",
        clears: "the port may be opened",
        parameters: ["port"],
    }
    2051 MALFORMED_REQUESTS Warning, exit Failed, http 400, since "0.1.0" {
        what: "A client sends requests that are not well formed.",
        why: "A broken or hostile client, or something that is no NFS client at all. Such requests are refused; a connection that cannot be followed any more is closed.",
        act: ["find out what runs at that address"],
        urgency: "none for the data",
        clears: "no such request came for ten minutes",
        parameters: ["client", "reason"],
    }
}
