//  Probes are plain text; a page would tell a machine nothing more.

#include "http/health.h"

#include "actors/metrics.h"
#include "http/answer.h"
#include "http/request.h"
#include "http/worker.h"

int
health_answer_alive (struct mg_connection *conn)
{
    return answer_allows (conn, "GET, HEAD") ? answer_text (conn, 200, "ok\n") : 405;
}

int
health_answer_ready (struct mg_connection *conn)
{
    if (!answer_allows (conn, "GET, HEAD"))
        return 405;
    worker_t *worker = worker_of (conn);
    if (atomic_load (&worker_pool (worker)->draining))
        return answer_text (conn, 503, "stopping\n");
    return worker_database_ready (worker) ? answer_text (conn, 200, "ready\n")
                                          : answer_text (conn, 503, "no database\n");
}

int
health_answer_metrics (struct mg_connection *conn)
{
    const char *audience = worker_settings (worker_of (conn))->http_metrics;
    if (streq (audience, "off"))
        return answer_error (conn, 404, NULL, NULL);
    if (!answer_allows (conn, "GET, HEAD"))
        return 405;
    if (!streq (audience, "all") && !request_is_local (mg_get_request_info (conn)))
        return answer_error (conn, 403, NULL, NULL);
    char *text = metrics_text ();
    answer_send (conn, &(answer_t){.status = 200,
                                   .type = "text/plain; version=0.0.4; charset=utf-8",
                                   .cache = "no-store",
                                   .body = text,
                                   .size = strlen (text)});
    zstr_free (&text);
    return 200;
}
