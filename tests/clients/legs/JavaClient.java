// The official Java client, once through the legs that it has. Arguments: URL, token; the calls on standard input. Prints
// what came of each leg.
import io.modelcontextprotocol.client.McpClient;
import io.modelcontextprotocol.client.McpSyncClient;
import io.modelcontextprotocol.client.transport.HttpClientStreamableHttpTransport;
import io.modelcontextprotocol.json.McpJsonDefaults;
import io.modelcontextprotocol.spec.McpSchema;
import java.net.URI;
import java.net.http.HttpRequest;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

public class JavaClient {
    static final Duration WAIT = Duration.ofSeconds(240);
    static final Map<String, String> found = new LinkedHashMap<>();

    public static void main(String[] arguments) throws Exception {
        URI url = URI.create(arguments[0]);
        String text = new String(System.in.readAllBytes(), StandardCharsets.UTF_8);
        @SuppressWarnings("unchecked")
        Map<String, Object> calls = McpJsonDefaults.getMapper().readValue(text, Map.class);
        AtomicInteger reports = new AtomicInteger(), asked = new AtomicInteger();
        CountDownLatch told = new CountDownLatch(1);
        McpSyncClient client = McpClient.sync(
                HttpClientStreamableHttpTransport.builder(url.getScheme() + "://" + url.getAuthority())
                    .endpoint(url.getPath())
                    .openConnectionOnStartup(true)
                    .requestBuilder(HttpRequest.newBuilder().header("Authorization", "Bearer " + arguments[1]))
                    .build())
            .requestTimeout(WAIT)
            .initializationTimeout(WAIT)
            .capabilities(McpSchema.ClientCapabilities.builder().elicitation().build())
            .elicitation(request -> {
                asked.incrementAndGet();
                return McpSchema.ElicitResult.builder(McpSchema.ElicitResult.Action.ACCEPT)
                    .content(Map.of("confirmation", "Yes")).build();
            })
            .progressConsumer(said -> reports.incrementAndGet())
            .toolsChangeConsumer(tools -> told.countDown())
            .build();
        found.put("open", client.initialize().protocolVersion());
        boolean listed = client.listTools().tools().stream().anyMatch(tool -> tool.name().equals("find"));
        found.put("tools", listed ? "listed" : "none");
        leg("call", () -> call(client, calls, "call", Map.of()));
        leg("refusal", () -> call(client, calls, "refusal", Map.of()));
        leg("stream", () -> {
            String said = call(client, calls, "stream", Map.of("progressToken", "stream"));
            return said + ", " + reports + " reports";
        });
        leg("news", () -> {
            call(client, calls, "news", Map.of());
            return told.await(60, TimeUnit.SECONDS) ? "told" : "nothing came";
        });
        leg("ping", () -> {
            client.ping();
            return "answered";
        });
        leg("level", () -> {
            client.setLoggingLevel(McpSchema.LoggingLevel.WARNING);
            return "set";
        });
        leg("resources", () -> {
            call(client, calls, "export", Map.of());
            McpSchema.Resource resource = client.listResources().resources().get(0);
            String content;
            do content = client.readResource(resource).contents().get(0).toString();
            while (content.contains("still being generated"));
            return content.contains("EU") ? "listed, read" : "another content";
        });
        leg("confirmation", () -> call(client, calls, "confirmation", Map.of()) + ", asked " + asked + " times");
        client.closeGracefully();
        System.out.println(new String(McpJsonDefaults.getMapper().writeValueAsBytes(found), StandardCharsets.UTF_8));
        System.exit(0);
    }

    @SuppressWarnings("unchecked")
    static String call(McpSyncClient client, Map<String, Object> calls, String leg, Map<String, Object> meta) {
        Map<String, Object> one = (Map<String, Object>) calls.get(leg);
        McpSchema.CallToolRequest.Builder request = McpSchema.CallToolRequest.builder((String) one.get("name"))
            .arguments((Map<String, Object>) one.get("arguments"));
        if (!meta.isEmpty()) request.meta(meta);
        return Boolean.TRUE.equals(client.callTool(request.build()).isError()) ? "refused" : "answered";
    }

    static void leg(String name, Callable<String> work) {
        try {
            found.put(name, work.call());
        } catch (Exception error) {
            found.put(name, (error.getClass().getSimpleName() + ": " + error.getMessage()));
        }
    }
}
