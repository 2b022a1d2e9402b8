//  An address with ?v=ETAG names one version, which never changes: clients may keep it for ever. A
//  bare address may be kept too, but its entity tag must be asked for each time. The gzipped copy
//  is other bytes, so it has a tag of its own.

#include "http/files.h"

#include "http/answer.h"
#include "http/request.h"
#include "http/worker.h"

int
files_answer (struct mg_connection *conn, const char *name)
{
    if (!answer_allows (conn, "GET, HEAD"))
        return 405;
    const asset_t *asset = assets_find (site_assets (worker_site (worker_of (conn))), name);
    if (!asset)
        return answer_error (conn, 404, NULL, NULL);
    const struct mg_request_info *info = mg_get_request_info (conn);
    bool gzip = asset->gzip && request_takes_gzip (info);
    const char *query = info->query_string;
    bool versioned = query && strncmp (query, "v=", 2) == 0 && streq (query + 2, asset->etag);
    char headers[256];
    int size = snprintf (headers, sizeof (headers), "ETag: \"%s%s\"\r\n%s%s", asset->etag,
                         gzip ? "-gzip" : "", asset->gzip ? "Vary: Accept-Encoding\r\n" : "",
                         gzip ? "Content-Encoding: gzip\r\n" : "");
    assert (size > 0 && (size_t) size < sizeof (headers));
    answer_t answer = {.status = 200,
                       .type = asset->type,
                       .cache = versioned ? "public, max-age=31536000, immutable" : "no-cache",
                       .headers = headers,
                       .body = gzip ? asset->gzip : asset->data,
                       .size = gzip ? asset->gzip_size : asset->size};
    if (request_has_etag (info, asset->etag)) {
        answer.status = 304;
        answer.size = 0;
    }
    return answer_send (conn, &answer);
}
