// Java's HttpClient, as `java Client.java URL PLAN`.
import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;

class Client {
  static final Map<Integer, byte[]> patterns = new HashMap<>();
  static final Map<Integer, String> hashes = new HashMap<>();

  static byte[] pattern(int bytes) {
    return patterns.computeIfAbsent(bytes, size -> {
      byte[] out = new byte[size];
      for (int i = 0; i < size; i++) out[i] = (byte) (97 + i % 23);
      return out;
    });
  }

  static String hashOf(int bytes) {
    return hashes.computeIfAbsent(bytes, size -> {
      try {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(pattern(size)));
      } catch (Exception error) {
        throw new IllegalStateException(error);
      }
    });
  }

  static String fault(HttpResponse<byte[]> answer, String id, int bodyBytes, int answerBytes) {
    if (answer.statusCode() != 200) return "status " + answer.statusCode();
    String of = answer.headers().firstValue("x-request").orElse("none");
    if (!of.equals(id)) return "the answer to " + of;
    if (!answer.headers().firstValue("x-received").orElse("").equals(hashOf(bodyBytes))) return "another body was received";
    return Arrays.equals(answer.body(), pattern(answerBytes)) ? "" : "another answer, of " + answer.body().length + " bytes";
  }

  public static void main(String[] args) throws Exception {
    List<String> plan = Files.readAllLines(Path.of(args[1]));
    HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    for (String line : plan) {
      String[] parts = line.split(" ");
      int bodyBytes = Integer.parseInt(parts[3]), answerBytes = Integer.parseInt(parts[4]);
      String framing = parts[1];
      BodyPublisher body = framing.equals("none") ? BodyPublishers.noBody()
          : framing.equals("length") ? BodyPublishers.ofByteArray(pattern(bodyBytes))
          : BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(pattern(bodyBytes)));
      HttpRequest request = HttpRequest.newBuilder(URI.create(args[0] + parts[5]))
          .method(framing.equals("none") ? "GET" : "POST", body)
          .header("x-request", parts[0])
          .expectContinue(parts[2].equals("expect"))
          .timeout(Duration.ofSeconds(20))
          .build();
      try {
        String fault = fault(client.send(request, BodyHandlers.ofByteArray()), parts[0], bodyBytes, answerBytes);
        if (!fault.isEmpty()) System.out.println(parts[0] + ": " + fault);
      } catch (Exception error) {
        System.out.println(parts[0] + ": " + error);
      }
    }
    System.out.println("done " + plan.size());
    System.exit(0);
  }
}
